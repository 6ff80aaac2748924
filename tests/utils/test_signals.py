"""Signals that ask to stop, and processes that end with the one that has started them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastreid.utils.signals import stop_signals_to

REPO = Path(__file__).resolve().parents[2]
PROGRAM = """
import multiprocessing, os, signal, time
from fastreid.utils.signals import end_with_parent

def wait():
    while os.getppid() == multiprocessing.parent_process().pid:
        time.sleep(0.01)

def work(ready):
    {steps}
    print("alive", flush=True)

context = multiprocessing.get_context("fork")
ready = context.Event()
context.Process(target=work, args=[ready]).start()
ready.wait()
os._exit(0)
"""
END = "end_with_parent(signal.SIGKILL)"


@pytest.mark.parametrize("steps", [f"{END}; ready.set(); wait()", f"ready.set(); wait(); {END}"])
def test_a_process_ends_with_its_parent_also_if_that_has_ended_before(steps):
    """A pipe that is read to its end tells that nobody holds it any more."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(steps=steps)],
        env=os.environ | {"PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    assert done.stdout == b""


def test_sighup_that_is_ignored_as_under_nohup_stays_so_and_else_stops():
    came = []
    for ignored in (True, False):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        try:
            with stop_signals_to(lambda number, frame: came.append(number)):
                os.kill(os.getpid(), signal.SIGHUP)
        finally:
            signal.signal(signal.SIGHUP, before)
        assert came == ([] if ignored else [signal.SIGHUP])
