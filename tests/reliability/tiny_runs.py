"""The training program on a rendered benchmark, with models and schedules of seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from worlds.options import DEMO, REPO, TINY
from worlds.programs import Ran, run_tool

PROGRAM = REPO / "tools" / "train_net.py"

EPOCHS, ITERATIONS = 2, 8  # of a tiny run; ITERATIONS an epoch
OPTIONS = [
    *(*TINY, "SOLVER.MAX_EPOCH", str(EPOCHS), "SOLVER.ITERS_PER_EPOCH", str(ITERATIONS)),
    *("SOLVER.WARMUP_ITERS", "3", "TEST.EVAL_PERIOD", "1"),
]


def arguments(stage: int, data: Path, output: Path, *more: Any) -> list[str]:
    """Of train_net.py; later KEY VALUE pairs win."""
    paths = ["DATASETS.ROOT", data, "OUTPUT_DIR", output]
    return list(map(str, ["--config-file", DEMO[stage], *OPTIONS, *paths, *more]))


def train(*command: Any) -> Ran:
    """Run the program in this process with that command line."""
    return run_tool("train_net.py", *command)


def start(*command: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen:
    """The program as a process of its own, both its outputs together in ``stdout``."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-u", str(PROGRAM), *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process: subprocess.Popen, text: str) -> str:
    """What `process` prints up to the first line that contains `text`; fails when it ends before."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"{text!r} was not printed:\n{''.join(lines)}")


def children(process: subprocess.Popen) -> list[int]:
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return [int(pid) for pid in file.read().split()]


def finish(process: subprocess.Popen, expected: int = 0) -> str:
    """Wait for the end; what was printed since the last read. Checks the exit code."""
    output, _ = process.communicate(timeout=600)
    assert process.returncode == expected, output
    return output


def final_state(folder: Path) -> dict[str, Any]:
    """The last checkpoint of a finished run, without what tells only when and where it was made."""
    state = torch.load(folder / "model_final.pth", weights_only=True)
    del state["meta"]["config"]
    for name in ("time", "data_time"):
        state["events"]["history"].pop(name)
    return state


def logged(folder: Path) -> list[dict[str, Any]]:
    """metrics.json without timings."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time", "data_time")} for line in lines]


def same(first: Any, second: Any) -> bool:
    """Equality of nested containers, tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second
