"""The conversion of a checkpoint of the reference release."""

import pytest
from release_files import YAML


@pytest.fixture
def convert(convert_checkpoint):
    """`convert(content, architecture)`: as `convert_checkpoint`, with a yaml of the release."""

    def run(content: dict, architecture: str, *more: str) -> tuple[int, str]:
        return convert_checkpoint(content, YAML.format(architecture=architecture), *more)

    return run
