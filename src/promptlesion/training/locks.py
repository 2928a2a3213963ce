"""Locks, where several commands meet in one folder; a lock goes with the process that holds it, however that ends."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from promptlesion.training.atomic import remove_leftovers

logger = logging.getLogger(__name__)

LOCKS_FOLDER = ".locks"
_MOUNTS = Path("/proc/self/mounts")
_ONE_MACHINE_ONLY = {
    "nfs": ("nolock", "local_lock=all", "local_lock=flock"),
    "nfs4": ("local_lock=all", "local_lock=flock"),
    "lustre": ("localflock", "noflock"),
}
"""Options of file systems under which a machine does not see the locks of others."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_REMEDY = "Mount it with locks, or choose another folder"
_MOST_TRIES = 100


class LockError(OSError):
    """Locks do not work in a folder; the message says what to do."""


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold a lock while the block runs, or say at once that another process has it."""
    lock = _acquired(path, is_waiting=False)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock while the block runs, and wait for it before."""
    lock = _acquired(path, is_waiting=True)
    assert lock is not None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Let one command at a time work in a folder: another waits until this one ends, and says so.

    What killed commands left half written there is removed.

    Raises:
        LockError: locks do not work there.
    """
    is_new = not folder.exists()
    check_locks(folder)
    path = folder / LOCKS_FOLDER / "command.lock"
    with lock_if_free(path) as is_free:
        if not is_free:
            logger.warning("%s: another command is at work there; this one waits for it", folder)
    with locked(path):
        remove_leftovers(folder, but_not_beside=LOCKS_FOLDER)
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps what is open, and another command may have come
                path.unlink()
                path.parent.rmdir()
                if is_new:  # a refused command leaves nothing
                    folder.rmdir()


def check_locks(folder: Path) -> None:
    """Make sure that processes see one another's locks in a folder, on whatever machine they are.

    Raises:
        LockError: they do not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    option = _one_machine_option(folder)
    if option is not None:
        raise LockError(
            f"{folder}: expected a file system on which all machines see one another's locks; found one mounted with "
            f"{option}. {_REMEDY}"
        )
    path = folder / LOCKS_FOLDER / "trial.lock"
    with lock_if_free(path) as is_free, suppress(OSError):
        if is_free:
            path.unlink()
            path.parent.rmdir()


def _one_machine_option(folder: Path) -> str | None:
    """Return the option of the folder's mount that keeps locks from other machines, if there is one; on Linux alone."""
    if not _MOUNTS.is_file():
        return None
    lines = [line.split() for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    mounts = {Path(place.replace("\\040", " ")): (kind, options.split(",")) for _, place, kind, options, *_ in lines}
    resolved = folder.resolve()
    kind, options = next((mounts[path] for path in (resolved, *resolved.parents) if path in mounts), ("", []))
    return next((option for option in _ONE_MACHINE_ONLY.get(kind, ()) if option in options), None)


def _acquired(path: Path, *, is_waiting: bool) -> BaseFileLock | None:
    """Return the lock, held; nothing where another process holds it and it is not to be waited for."""
    lock = FileLock(path)
    for _ in range(_MOST_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=is_waiting)
        except Timeout:
            return None
        except FileNotFoundError:  # who held the lock has just removed the folder
            continue
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise
            message = f"{path.parent.parent}: expected a file system with locks; found none: {error}. {_REMEDY}"
            raise LockError(message) from error
        if _is_held(path):
            return lock
        lock.release()  # of a file that who held it has just removed
    raise LockError(
        f"{path.parent.parent}: expected a file system with locks; found one that gave the same lock twice. {_REMEDY}"
    )


def _is_held(path: Path) -> bool:
    """Return whether the lock of this name is held, by whomever."""
    try:
        with FileLock(path, blocking=False):
            return False
    except Timeout:
        return True
    except FileNotFoundError:
        return False
