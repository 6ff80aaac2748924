"""The repository's programs, called in this process."""

import io
import logging
import re
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from typing import NamedTuple

import torch
from worlds.options import REPO


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def run_tool(name: str, *arguments: object) -> Ran:
    """`run_tool("search.py", argument, …)`: its exit code, stdout and stderr."""
    text = (REPO / "tools" / name).read_text()
    (module,) = re.findall(r'^run\("(.+)", __name__\)$', text, re.MULTILINE)
    program = import_module(module)
    code, out, err = 0, _stream(), _stream()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums over more threads would differ in the last bit
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = program.main(list(map(str, arguments))) or 0
        except SystemExit as stopped:
            code = stopped.code
        finally:
            torch.set_num_threads(threads)
            reset_logger()  # its handlers write to these streams
    return Ran(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


def reset_logger() -> None:
    """Leave the package's logger as it is on import, and no log file open."""
    logger = logging.getLogger("fastreid")
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
