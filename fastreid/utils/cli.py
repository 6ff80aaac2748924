"""How command-line tools end: code 2 and one line for a mistake of the user, 128 + number for a signal."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from fastreid.utils.errors import UserError


@contextmanager
def exit_on_user_error(debug: bool = False) -> Iterator[None]:
    """Turn a `UserError` from the block into ``error: …`` on stderr and ``SystemExit(2)``.

    With `debug` the exception passes through, so that the traceback shows where it came from.
    Every other exception passes through too: it is a fault of the program.
    """
    try:
        yield
    except UserError as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM in the block into one line on stderr and ``SystemExit`` with 128 + the number.

    For the time in which there is nothing to save; training has its own way (`StopOnSignal`). A second
    signal ends the process at once.
    """
    pid = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != pid:  # a loader's worker, which inherits the handler
            os._exit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        print(f"stopped by {signal.Signals(number).name}: nothing to save", file=sys.stderr)
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class CommandLineParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose complaints are a `UserError`: use it inside `exit_on_user_error`."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")
