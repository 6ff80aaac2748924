"""The real command line on generated benchmarks: each run is a process of its own, in an empty folder."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import REPO


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def run_tool(tmp_path):
    """`run_tool("train_net.py", argument, …)` in an empty folder; `cwd`, `env` and `expect` can be given."""

    def run(
        tool: str, *arguments: str, cwd: Path = tmp_path, env: dict | None = None, expect: int | None = 0
    ):
        process = subprocess.run(
            [sys.executable, str(REPO / "tools" / tool), *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            capture_output=True,
            text=True,
            timeout=300,
        )
        if expect is not None:
            assert process.returncode == expect, process.stdout[-3000:] + process.stderr[-3000:]
        return Result(process.returncode, process.stdout, process.stderr)

    return run


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory) -> Path:
    """A folder with small versions of all five benchmarks in their real layouts."""
    root = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, str(REPO / "tools" / "make_synthetic_benchmark.py"), "--benchmark", "all"]
    options = ["--train-ids", "8", "--test-ids", "6", "--images-per-camera", "2", "--size", "64x32"]
    subprocess.run([*command, "--root", str(root), *options], check=True, capture_output=True, timeout=300)
    return root
