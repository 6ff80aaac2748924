"""Configuration files."""

import pytest


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write_file(name: str, text: str):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write_file
