"""What every test starts from: the package's logger as on import, no warning given yet; the tools and registries."""

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from fastreid.config import get_cfg
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


@pytest.fixture
def load_tool() -> Callable[[str], ModuleType]:
    """`load_tool("search.py")`: the tool as a module of its own."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location("tool", TOOLS / name)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        return tool

    return load


@pytest.fixture
def run_tool(load_tool, capsys) -> Callable[..., tuple[int, str, str]]:
    """`run_tool("search.py", argument, …)`: exit code, stdout and stderr of the tool, in this process."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        tool = load_tool(name)
        capsys.readouterr()
        code = 0
        try:
            tool.main(list(map(str, arguments)))
        except SystemExit as stopped:
            code = stopped.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def own_names():
    """What the test registers is forgotten after it."""
    get_cfg()  # fills the registries
    before = {registry: dict(registry._entries) for registry in Registry.every.values()}
    yield
    for registry, entries in before.items():
        registry._entries.clear()
        registry._entries.update(entries)
