"""A checkpoint of each stage with random weights, and some pictures."""

from pathlib import Path

import pytest
from worlds.checkpoints import write_checkpoint


@pytest.fixture(scope="session")
def paths(cargo) -> list[str]:
    """Seven of the rendered pictures."""
    return sorted(str(path) for path in cargo.rglob("train/*/*.jpg"))[:7]


@pytest.fixture(scope="session")
def checkpoints(cargo, tmp_path_factory) -> dict[int, Path]:
    """``{stage: model_best.pth}``, each with its config.yaml beside it; not to be changed."""
    return {
        stage: write_checkpoint(tmp_path_factory.mktemp(f"stage{stage}"), stage, cargo) for stage in (1, 2)
    }
