"""The real command line on generated benchmarks: each run is a process of its own, in an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from worlds.options import REPO


@pytest.fixture
def run_tool(tmp_path):
    """`run_tool("train_net.py", argument, …)` in an empty folder, where it is to end well."""

    def run(tool: str, *arguments: str) -> None:
        process = subprocess.run(
            [sys.executable, str(REPO / "tools" / tool), *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]

    return run


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory) -> Path:
    """A folder with small versions of all five benchmarks in their real layouts."""
    root = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, str(REPO / "tools" / "make_synthetic_benchmark.py"), "--benchmark", "all"]
    options = ["--train-ids", "8", "--test-ids", "6", "--images-per-camera", "2", "--size", "64x32"]
    subprocess.run([*command, "--root", str(root), *options], check=True, capture_output=True, timeout=300)
    return root
