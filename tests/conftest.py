"""What every test starts from: the package's logger as on import, and no warning given yet."""

import logging

import pytest

from fastreid.utils.logger import warn_once


@pytest.fixture(autouse=True)
def fresh_logging():
    logger = logging.getLogger("fastreid")
    before = logger.handlers[:], logger.level, logger.propagate
    warn_once.cache_clear()
    yield
    logger.handlers[:], logger.level, logger.propagate = before
