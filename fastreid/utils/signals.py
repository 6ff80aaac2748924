"""The signals that ask a program to stop: SIGINT (Ctrl-C) and SIGTERM."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def stop_signals_to(handler: Handler) -> Iterator[None]:
    """Let `handler` have SIGINT and SIGTERM while the block runs; then those who had them have them again.

    Python allows it to the main thread alone: in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def stop_signals_held_back() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the block is over.

    In processes started in the block they wait until `let_stop_signals_through`: a Python that has only just
    begun would answer Ctrl-C with a traceback.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def let_stop_signals_through() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
