"""Registries as they were before a test that fills them, and configuration files."""

import pytest

from fastreid.config import get_cfg
from fastreid.utils.registry import Registry


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write_file(name: str, text: str):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def own_names():
    """What the test registers is forgotten after it."""
    get_cfg()  # fills the registries
    before = {key: dict(registry._entries) for key, registry in Registry.every.items()}
    yield
    for key, entries in before.items():
        Registry.every[key]._entries.clear()
        Registry.every[key]._entries.update(entries)
