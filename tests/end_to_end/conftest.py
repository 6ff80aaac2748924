"""Generated benchmarks, and a Python for the programs and scripts that run as processes of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from worlds.warm_python import warm_python


@pytest.fixture(scope="session")
def python() -> Iterator[Path]:
    """A `python` that starts quickly."""
    with warm_python() as path:
        yield path
