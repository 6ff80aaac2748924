"""Logging: coloured and short on the console, plain and complete in ``log.txt``."""

import contextlib
import logging
import sys
from collections import deque
from functools import cache
from pathlib import Path

from termcolor import colored

from fastreid.utils.errors import Complaint
from fastreid.utils.output import secure_output

_COLORS = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


class _ConsoleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        color = _COLORS.get(record.levelno)
        return colored(text, color) if color else text


class _EarlyRecords(logging.Handler):
    """Keeps what is logged before there is a log file."""

    def __init__(self, limit: int = 1000) -> None:
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=limit)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class _LogFile(logging.FileHandler):
    """A log file that a full disk makes incomplete, with one warning on the console, but never a failure."""

    _told = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # from opening the file: the first time an error, later as if it were full
            if not self._told:
                raise
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        stream, self.stream = self.stream, None  # the next record opens the file again
        if stream:
            with contextlib.suppress(OSError):
                stream.close()
        if not self._told:
            self._told = True
            logging.getLogger("fastreid").warning(
                "%s cannot be written: %s; it lacks lines from here on", self.baseFilename, error.strerror
            )


def setup_logger(output_dir: str | None = None, rank: int = 0) -> logging.Logger:
    """Configure the ``fastreid`` logger and return it. Calling it again replaces the handlers.

    Rank 0 logs to the console. With `output_dir` a log file is opened at once; without it,
    :func:`open_log_file` may do so later. The colours are left out when the console is no terminal.
    """
    logger = logging.getLogger("fastreid")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()

    if rank == 0:
        secure_output()  # of a process that was spawned
        console = logging.StreamHandler(sys.stdout)
        console.setLevel(logging.INFO)
        console.setFormatter(_ConsoleFormatter("[%(asctime)s] %(message)s", "%H:%M:%S"))
        logger.addHandler(console)
    logger.addHandler(_EarlyRecords())
    if output_dir:
        open_log_file(output_dir, rank)
    return logger


def open_log_file(output_dir: str, rank: int = 0) -> None:
    """Log to ``log.txt`` in `output_dir` from now on, beginning with what was logged since `setup_logger`.

    Ranks other than 0 log warnings only, to ``log.txt.rankN``, made when there is one. A log file that
    was open before is closed.
    """
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    name = "log.txt" if rank == 0 else f"log.txt.rank{rank}"
    place, escaped = Path(output_dir) / name, "backslashreplace"  # file names need not be valid text
    file = _LogFile(place, delay=True, encoding="utf-8", errors=escaped)
    file.setLevel(logging.DEBUG if rank == 0 else logging.WARNING)
    file.setFormatter(logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s"))
    logger = logging.getLogger("fastreid")
    for handler in logger.handlers[:]:
        if isinstance(handler, logging.FileHandler):
            logger.removeHandler(handler)
            handler.close()
        elif isinstance(handler, _EarlyRecords):
            logger.removeHandler(handler)
            for record in handler.records:
                if record.levelno >= file.level:
                    file.handle(record)
    logger.addHandler(file)


@cache
def warn_once(name: str, problem: str, fix: str = "") -> None:
    """Log a :class:`Complaint` as a warning of logger `name`, the first time only."""
    logging.getLogger(name).warning(Complaint(problem, fix))
