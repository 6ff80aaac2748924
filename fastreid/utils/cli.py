"""The end of command-line tools: code 2 and one line for a mistake, 128 + number for a signal.

Imports nothing heavy, so that a program can call `exit_during_imports` before what takes seconds.
"""

import argparse
import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any, NoReturn, TypeVar

from fastreid.utils.errors import UserError, WorkerError
from fastreid.utils.output import check_printed, secure_output
from fastreid.utils.signals import handle_stop_signals, let_stop_signals_through, stop_signals_to

T = TypeVar("T")

NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)
LONGEST_LINE = 4000  # characters of a message; it may quote what somebody else wrote


def exit_during_imports(module: str) -> None:
    """Let a signal that asks to stop end a program at once, with a line, until `exit_cleanly` takes over.

    At once, because an exception from a signal handler can come out of half an import as any other error.
    From here on the program has an output that may break, too: see `secure_output`.

    Args:
        module: the file's ``__name__``; where it is neither run nor that of a spawned process (but imported
            by a test, for instance) nothing changes.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if module == "__main__":  # a spawned process leaves it to its parent to tell
            with contextlib.suppress(OSError):
                os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
        os._exit(128 + number)

    if module in ("__main__", "__mp_main__"):
        secure_output()
        handle_stop_signals(stop)
        let_stop_signals_through()


def read_command_line(build_parser: Callable[[], "CommandLineParser"]) -> None:
    """Read the program's command line before the imports: help and a mistake in it take no time."""
    with exit_cleanly(sys.argv):
        build_parser().read(sys.argv[1:])


def read_before_imports(module: str, build_parser: Callable[[], "CommandLineParser"]) -> None:
    """Do as `exit_during_imports` and, where `module` is the program, as `read_command_line`."""
    exit_during_imports(module)
    if module == "__main__":
        read_command_line(build_parser)


@contextmanager
def exit_cleanly(
    arguments: Sequence[str] = (), when_stopped: str = "nothing to save", only_logs: bool = False
) -> Iterator[None]:
    """Run the `main` of a tool in `exit_on_signals` and `exit_on_user_error` together.

    What stdout cannot encode, such as a file name that is no valid text, is escaped, as on stderr.

    Args:
        arguments: the command line's. ``--debug`` among them, wherever it stands, shows the traceback of an
            error, also of one that they have themselves.
        when_stopped: as in `exit_on_signals`.
        only_logs: the result is not what is printed: nothing is lost where it cannot be.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with exit_on_signals(when_stopped), exit_on_user_error(debug="--debug" in arguments):
        yield
        if not only_logs:
            check_printed()


@contextmanager
def exit_on_user_error(debug: bool = False) -> Iterator[None]:
    """Turn a `UserError` from the block into ``error: …`` on stderr and ``SystemExit(2)``.

    So is a path that the system cannot follow, wherever it came from; a `WorkerError` ends with 1. With
    `debug` the exception passes through, so that the traceback shows where it came from. Every other
    exception passes through too: it is a fault of the program.
    """
    try:
        yield
    except WorkerError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except (UserError, OSError) as error:
        if debug or (isinstance(error, OSError) and error.errno not in NO_PATH):
            raise
        text = " ".join(str(error).split())
        shown = text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]} …"
        print(f"error: {shown}", file=sys.stderr)
        raise SystemExit(2) from None


@contextmanager
def exit_on_signals(when_stopped: str = "nothing to save") -> Iterator[None]:
    """Turn a signal that asks to stop into one line on stderr and ``SystemExit`` with 128 + its number.

    For the time in which there is nothing to save; training has its own way (`StopOnSignal`). A second
    signal ends the process at once.

    Args:
        when_stopped: what the line tells the user about the work done so far.
    """
    pid = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != pid:  # a loader's worker, which inherits the handler
            os._exit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        print(f"stopped by {signal.Signals(number).name}: {when_stopped}", file=sys.stderr)
        raise SystemExit(128 + number)

    with stop_signals_to(stop):
        yield


def command(
    build_parser: Callable[[], "CommandLineParser"],
    when_stopped: str = "nothing to save",
    only_logs: bool = False,
) -> Callable[[Callable[[argparse.Namespace], T]], Callable[[Sequence[str] | None], T]]:
    """Make a ``main(argv=None)`` of a function of the parsed arguments: it reads them, and ends cleanly.

    Args:
        when_stopped, only_logs: as in `exit_cleanly`.
    """

    def decorate(function: Callable[[argparse.Namespace], T]) -> Callable[[Sequence[str] | None], T]:
        @wraps(function)
        def main(argv: Sequence[str] | None = None) -> T:
            argv = sys.argv[1:] if argv is None else argv
            with exit_cleanly(argv, when_stopped, only_logs):
                return function(build_parser().read(argv))

        return main

    return decorate


def positive_number(text: str) -> int:
    """Read a whole number from 1 on; an argparse `type`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def number_from_zero(text: str) -> int:
    """Read a whole number from 0 on; an argparse `type`."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text!r}")
    return int(text)


def add_imports_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--imports`` to a parser: what a configuration that the user has not named may have imported."""
    parser.add_argument(
        "--imports",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="modules, or .py files, of yours that the checkpoint's model needs",
    )


class CommandLineParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose complaints are a `UserError`: use it inside `exit_cleanly`.

    It, and with it the parser of every subcommand, takes ``--debug``, which `exit_cleanly` reads. The
    description is printed as it stands.
    """

    def __init__(self, description: str | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, **options)
        flag = {"action": "store_true", "default": argparse.SUPPRESS}
        self.add_argument("--debug", **flag, help="show the traceback of an error")

    def add_count(self, flag: str, default: int, help: str, **options: Any) -> None:
        """Add an option that takes a whole number from 1 on; its help ends with the default."""
        shown = f"{help} (default %(default)s)"
        options = {"type": positive_number, "metavar": "N"} | options
        self.add_argument(flag, default=default, help=shown, **options)

    def add_config(self, help: str, **options: Any) -> None:
        """Add ``--config-file``, and the pairs KEY VALUE that change what the file says."""
        options = options or {"required": True}
        self.add_argument("--config-file", metavar="FILE", help=help, **options)
        self.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys to change")

    def add_model(self, *earlier: str, config: str = "", required: bool = False) -> None:
        """Add ``--model`` and ``--config-file``, ``--imports`` and the pairs KEY VALUE beside it.

        Args:
            earlier: other spellings of ``--model``.
            config: the help of ``--config-file``.
        """
        path = "a trained model: its checkpoint, or the folder of its run"
        options = {"default": "", "metavar": "PATH", "required": required}
        self.add_argument("--model", *earlier, dest="model", help=path, **options)
        self.add_config(config or "default: config.yaml beside the checkpoint, or what it holds", default="")
        add_imports_option(self)

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse; options may stand between the other arguments, but where there are subcommands."""
        return self.parse_args(argv) if self._subparsers else self.parse_intermixed_args(argv)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")
