"""The package of this checkout, found from every folder and without installation."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # else Ctrl-C shows a traceback, until `run` takes it over

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fastreid.cli import run

__all__ = ["run"]
