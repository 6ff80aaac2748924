"""A small rendered CARGO, and a checkpoint of each stage with random weights."""

from pathlib import Path

import pytest
from tiny_checkpoints import write_checkpoint

from fastreid.rendered import BenchmarkSpec, write_benchmark


@pytest.fixture(scope="session")
def cargo(tmp_path_factory) -> Path:
    """A DATASETS.ROOT with a small CARGO of 96x48 pictures; not to be changed."""
    root = tmp_path_factory.mktemp("rendered")
    write_benchmark("CARGO", root, BenchmarkSpec(4, 3, 2, (96, 48)), workers=0)
    return root


@pytest.fixture(scope="session")
def paths(cargo) -> list[str]:
    """Seven of its pictures."""
    return sorted(str(path) for path in cargo.rglob("train/*/*.jpg"))[:7]


@pytest.fixture(scope="session")
def checkpoints(cargo, tmp_path_factory) -> dict[int, Path]:
    """``{stage: model_best.pth}``, each with its config.yaml beside it; not to be changed."""
    return {
        stage: write_checkpoint(tmp_path_factory.mktemp(f"stage{stage}"), stage, cargo) for stage in (1, 2)
    }
