"""What every test starts from: the package's logger as on import, no warning given yet; the commands."""

import logging
from collections.abc import Callable
from types import ModuleType

import pytest

from fastreid.config import get_cfg
from fastreid.utils.logger import warn_once
from fastreid.utils.registry import Registry


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
def run_tool(capsys) -> Callable[..., tuple[int, str, str]]:
    """`run_tool(search, argument, …)`: exit code, stdout and stderr of a command, in this process."""

    def run(command: ModuleType, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = 0
        try:
            code = command.main(list(map(str, arguments))) or 0
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
