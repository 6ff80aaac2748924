"""What every test starts from: the package's logger as on import, no warning given yet; and the programs."""

import io
import logging
import re
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

import pytest

from fastreid.config import Registered, get_cfg
from fastreid.utils.logger import warn_once
from fastreid.utils.registry import Registry

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture(autouse=True)
def fresh_logging():
    """Also after fixtures of a wider scope, which may have run a program that sets up logging."""
    _reset_logger()
    warn_once.cache_clear()
    yield
    _reset_logger()


def _reset_logger() -> None:
    logger = logging.getLogger("fastreid")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture(scope="session")
def run_tool() -> Callable[..., tuple[int, str, str]]:
    """`run_tool("search.py", argument, …)`: its exit code, stdout and stderr, in this process."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        (module,) = re.findall(r'^run\("(.+)", __name__\)$', (TOOLS / name).read_text(), re.MULTILINE)
        program = import_module(module)
        code, out, err = 0, _stream(), _stream()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = program.main(list(map(str, arguments))) or 0
            except SystemExit as stopped:
                code = stopped.code
        _reset_logger()  # its handlers write to these streams
        return code, *(stream.buffer.getvalue().decode() for stream in (out, err))

    return run


@pytest.fixture
def own_names():
    """What the test registers, and the registries that it makes, are forgotten after it."""
    for name, key in get_cfg().declared.items():
        if isinstance(key.allowed, Registered):
            key.allowed.registry(name)  # is there, and filled
    every = dict(Registry.every)
    entries = {registry: dict(registry._entries) for registry in every.values()}
    yield
    Registry.every.clear()
    Registry.every.update(every)
    for registry, own in entries.items():
        registry._entries.clear()
        registry._entries.update(own)


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
