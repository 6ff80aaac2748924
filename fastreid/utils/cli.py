"""What every command-line tool does with a mistake of the user: one line, exit code 2."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


class CommandLineParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose complaints are a `UserError`: use it inside `exit_on_user_error`."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")
