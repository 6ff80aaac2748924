"""The signals that ask a program to stop: SIGINT (Ctrl-C), SIGTERM, and SIGHUP of a terminal that closes."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_REQUEST = 0.5  # seconds: a scheduler signals every process, and the launcher passes it on to them again

Handler = Callable[[int, FrameType | None], None]


def handle_stop_signals(
    handler: Handler | signal.Handlers, numbers: Sequence[signal.Signals] = STOPPING
) -> None:
    """Let `handler` have these signals from now on. A SIGHUP that is ignored, as under nohup, stays so."""
    for number in numbers:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def stop_signals_to(handler: Handler, numbers: Sequence[signal.Signals] = STOPPING) -> Iterator[None]:
    """Let `handler` have these signals while the block runs; then those who had them before have them again.

    Python allows it to the main thread alone: in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in numbers}
    handle_stop_signals(handler, numbers)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def stop_signals_held_back() -> Iterator[None]:
    """Let the signals that ask to stop wait until the block is over.

    In processes started in the block they wait until `let_stop_signals_through`: a Python that has only just
    begun would answer Ctrl-C with a traceback.
    """
    came: list[int] = []  # to other threads, such as those of a library
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        with stop_signals_to(lambda number, frame: came.append(number)):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        for number in came[:1]:
            os.kill(os.getpid(), number)


def start_resource_tracker() -> None:
    """Start the process that multiprocessing has beside those it spawns, such that SIGHUP does not end it.

    Call it before processes are spawned with signals held back: its start would let them through.
    """
    with stop_signals_held_back():
        resource_tracker.ensure_running()


def let_stop_signals_through() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def end_with_parent(number: signal.Signals) -> None:
    """Ask the kernel (of Linux) for signal `number` when the process that has started this one ends.

    If it has ended already, the signal comes at once.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)
        parent = multiprocessing.parent_process()
        if parent and os.getppid() != parent.pid:
            os.kill(os.getpid(), number)
