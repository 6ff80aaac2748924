"""Copies to be damaged, and finished runs of both stages."""

import shutil
from pathlib import Path

import pytest
from tiny_runs import arguments, train


@pytest.fixture
def own_cargo(cargo, tmp_path) -> Path:
    """A copy of the rendered DATASETS.ROOT, to be damaged."""
    return shutil.copytree(cargo, tmp_path / "data")


@pytest.fixture(scope="session")
def trained(cargo, tmp_path_factory) -> dict[int, Path]:
    """OUTPUT_DIRs of an uninterrupted run of each stage; not to be changed."""
    folders = {stage: tmp_path_factory.mktemp("trained") / f"stage{stage}" for stage in (1, 2)}
    assert train(*arguments(1, cargo, folders[1])).code == 0
    weights = ("MODEL.WEIGHTS", folders[1] / "model_best.pth")
    assert train(*arguments(2, cargo, folders[2], *weights)).code == 0
    return folders
