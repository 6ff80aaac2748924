"""What every test starts from: the package's logger as on import, and no warning given yet."""

import logging

import pytest

from fastreid.utils.logger import warn_once


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
