"""nnU-Net v2 in a process of its own, from whichever environment has it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from promptlesion.training.atomic import write_json

METHOD = "nnunetv2"
"""In the card of a run whose network nnU-Net planned and trained."""
_DRIVER = Path(__file__).with_name("nnunet_driver.py")
_COMMAND = "nnUNetv2_train"
"""The command by which an environment with nnU-Net is known."""
_TOLD_BYTES = 1500


class NNUNetMissingError(ValueError):
    """There is no nnU-Net v2 where it was looked for."""


class NNUNetProcess:
    """A running nnU-Net that was given a task; its answers are lines of JSON, its other words go to a log."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        """Take over a started process."""
        self._process, self._log = process, log

    def answers(self) -> Iterator[dict[str, Any]]:
        """Yield what it answers, as it comes, until it ends.

        Raises:
            RuntimeError: it ended badly; names the log and tells its last words.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)
        if self._process.wait() != 0:
            words = self._log.read_bytes()[-_TOLD_BYTES:].decode(errors="replace").strip()
            raise RuntimeError(
                f"{self._log}: expected nnU-Net to finish; found the exit status {self._process.returncode} and "
                f"these last words: {words}"
            )

    def ask(self, question: Mapping[str, object]) -> None:
        """Give it a line of JSON to answer."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: the answers tell why
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()


@contextmanager
def nnunet_process(python: Path, task: Mapping[str, object], *, folder: Path, log: Path) -> Iterator[NNUNetProcess]:
    """Start nnU-Net on a task; what still runs at the end of the block is ended, and so it is if we are killed.

    Args:
        folder: holds nnU-Net's own folders `raw`, `preprocessed` and `results`.
        log: nnU-Net's words are appended here.
    """
    request = folder / f"{task['task']}.json"
    write_json(request, task)
    on_cpu = {"nnUNet_n_proc_DA": "0"} if task.get("device") == "cpu" else {}
    environment = {
        **on_cpu,  # workers that draw batches would take the cores from the network
        **os.environ,
        **{f"nnUNet_{name}": str(folder.resolve() / name) for name in ("raw", "preprocessed", "results")},
        "PYTHONSAFEPATH": "1",  # the modules beside the driver are not to be taken for others of the same name
        "MPLBACKEND": "Agg",
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("ab") as words,
        subprocess.Popen(
            [str(python), str(_DRIVER), str(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield NNUNetProcess(process, log)
        finally:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()  # a driver that still runs ends itself and its own processes with that
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder for what nnU-Net needs while it predicts; it goes with the block."""
    with tempfile.TemporaryDirectory(prefix="promptlesion-nnunet-") as name:
        yield Path(name)


def find_nnunet(environment: str | None) -> Path:
    """Return the Python of an environment that has nnU-Net v2.

    Args:
        environment: folder of the environment; none: this Python's, else the one whose commands are on PATH.

    Raises:
        NNUNetMissingError: nnU-Net is not there.
    """
    if environment is not None:
        folders = [Path(environment) / name for name in ("bin", "Scripts")]
    else:
        on_path = shutil.which(_COMMAND)
        folders = [Path(sys.executable).parent, *([Path(on_path).resolve().parent] if on_path else [])]
    for folder in folders:
        python = shutil.which("python", path=str(folder))
        if python and shutil.which(_COMMAND, path=str(folder)):
            return Path(python)
    raise NNUNetMissingError(
        f"segmentation.network=nnunetv2: expected the command {_COMMAND} and its Python in "
        f"{environment or 'this environment or on PATH'}; found none. pip install 'promptlesion[nnunet]', or name the "
        "folder of an environment that has nnunetv2: --set segmentation.nnunet_environment=FOLDER"
    )
