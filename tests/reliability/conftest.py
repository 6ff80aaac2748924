"""Fixtures: a rendered benchmark, and the training program called in this process."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import PROGRAM, REPO, arguments

from fastreid.utils.logger import setup_logger


@pytest.fixture(scope="session")
def cargo(tmp_path_factory) -> Path:
    """A DATASETS.ROOT with a small CARGO; not to be changed."""
    root = tmp_path_factory.mktemp("rendered")
    options = ["--train-ids", "8", "--test-ids", "4", "--images-per-camera", "2", "--size", "64x32"]
    command = [sys.executable, str(REPO / "tools" / "make_synthetic_benchmark.py"), "--benchmark", "CARGO"]
    subprocess.run([*command, "--root", str(root), *options], check=True, capture_output=True, timeout=120)
    return root


@pytest.fixture
def own_cargo(cargo, tmp_path) -> Path:
    """A copy of that DATASETS.ROOT, to be damaged."""
    shutil.copytree(cargo, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def train_net(monkeypatch):
    """Calls train_net.py's program in this process, with a command line; returns the exit code."""
    spec = importlib.util.spec_from_file_location("train_net_in_process", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)

    def call(*command: str) -> int:
        monkeypatch.setattr(sys, "argv", ["train_net.py", *map(str, command)])
        try:
            program.run()
        except SystemExit as stopped:
            return stopped.code
        return 0

    yield call
    setup_logger()  # no log file stays open


@pytest.fixture(scope="session")
def trained(cargo, tmp_path_factory) -> dict[int, Path]:
    """OUTPUT_DIRs of an uninterrupted run of each stage, made by the command line; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    weights = folder / "stage1" / "model_best.pth"
    for stage, more in ((1, ()), (2, ("MODEL.WEIGHTS", weights))):
        command = arguments(stage, cargo, folder / f"stage{stage}", *more)
        subprocess.run([sys.executable, str(PROGRAM), *command], check=True, capture_output=True, timeout=200)
    return {stage: folder / f"stage{stage}" for stage in (1, 2)}
