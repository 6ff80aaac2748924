"""Fixtures: a rendered benchmark, and finished runs of both stages on it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import REPO, arguments, run_here


@pytest.fixture(scope="session")
def cargo(tmp_path_factory) -> Path:
    """A DATASETS.ROOT with a small CARGO; not to be changed."""
    root = tmp_path_factory.mktemp("rendered")
    options = ["--train-ids", "8", "--test-ids", "4", "--images-per-camera", "2", "--size", "64x32"]
    command = [sys.executable, str(REPO / "tools" / "make_synthetic_benchmark.py"), "--benchmark", "CARGO"]
    subprocess.run([*command, "--root", str(root), *options], check=True, capture_output=True, timeout=600)
    return root


@pytest.fixture
def own_cargo(cargo, tmp_path) -> Path:
    """A copy of that DATASETS.ROOT, to be damaged."""
    shutil.copytree(cargo, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def trained(cargo, tmp_path_factory) -> dict[int, Path]:
    """OUTPUT_DIRs of an uninterrupted run of each stage; not to be changed."""
    folders = {stage: tmp_path_factory.mktemp("trained") / f"stage{stage}" for stage in (1, 2)}
    assert run_here(*arguments(1, cargo, folders[1])) == 0
    weights = ("MODEL.WEIGHTS", folders[1] / "model_best.pth")
    assert run_here(*arguments(2, cargo, folders[2], *weights)) == 0
    return folders
