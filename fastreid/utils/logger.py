"""Logging: coloured and short on the console, plain and complete in ``log.txt``."""

import logging
import sys
from functools import cache
from pathlib import Path

from termcolor import colored

_COLORS = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


class _ConsoleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        color = _COLORS.get(record.levelno)
        return colored(text, color) if color else text


def setup_logger(output_dir: str | None = None, rank: int = 0) -> logging.Logger:
    """Configure the ``fastreid`` logger and return it. Calling it again replaces the handlers.

    Rank 0 logs to the console and, when `output_dir` is given, to ``log.txt`` in it; other ranks log
    warnings only, to ``log.txt.rankN``. The colours are left out when the console is no terminal.
    """
    logger = logging.getLogger("fastreid")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()

    if rank == 0:
        console = logging.StreamHandler(sys.stdout)
        console.setLevel(logging.INFO)
        console.setFormatter(_ConsoleFormatter("[%(asctime)s] %(message)s", "%H:%M:%S"))
        logger.addHandler(console)
    if output_dir:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        name = "log.txt" if rank == 0 else f"log.txt.rank{rank}"
        file = logging.FileHandler(Path(output_dir) / name, delay=True)
        file.setLevel(logging.DEBUG if rank == 0 else logging.WARNING)
        file.setFormatter(logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s"))
        logger.addHandler(file)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


@cache
def warn_once(name: str, message: str) -> None:
    """Log `message` as a warning of logger `name`, the first time only."""
    logging.getLogger(name).warning(message)
