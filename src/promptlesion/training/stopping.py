"""Signals that ask a process to end, put off until a training has saved: `kill`'s, and those a cluster sends first."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_NAMES = ("SIGTERM", "SIGUSR1", "SIGUSR2")
SIGNALS = tuple(signal.Signals[name] for name in _NAMES if hasattr(signal, name))
"""SIGTERM alone on Windows."""


class Terminated(KeyboardInterrupt):
    """A signal asks this process to end, and leaves it some time to do so."""


@dataclass
class Postponed:
    """Which signal has come, if one has."""

    received: signal.Signals | None = None


def end_as_interrupted(signals: Iterable[signal.Signals] = SIGNALS) -> None:
    """From now on let signals end this process as Ctrl+C does: what it started ends, half-written files go."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    for each in signals:
        signal.signal(each, interrupt)


@contextmanager
def signals_postponed() -> Iterator[Postponed]:
    """Note a signal rather than let it act; after the block it does what it would have done.

    Signals that are ignored stay so, and outside the main thread, where Python lets nobody handle them, none is put
    off.
    """
    postponed = Postponed()
    if threading.current_thread() is not threading.main_thread():
        yield postponed
        return
    handlers = {each: signal.getsignal(each) for each in SIGNALS}
    handlers = {each: handler for each, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}

    def note(number: int, _frame: FrameType | None) -> None:
        postponed.received = signal.Signals(number)

    for each in handlers:
        signal.signal(each, note)
    try:
        yield postponed
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
        if postponed.received is not None:
            signal.raise_signal(postponed.received)
