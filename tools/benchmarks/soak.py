"""Trainings that are killed and go on, against undisturbed ones, as `parsers.soak` describes."""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from tqdm import tqdm

from fastreid.utils.cli import command
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import check_output_folder
from tools.benchmarks.parsers.soak import build_parser
from tools.benchmarks.trainings import Moment, Run, check_ended_well, children, command_line

REPO = Path(__file__).resolve().parents[2]
STAGES = (1, 2)
TIMES = ("time", "data_time")


def train_command(args: argparse.Namespace, stage: int, name: str) -> list[str]:
    """Return the command that trains `stage` of the run `name`; it may be given again and again."""
    folder = args.output / name
    options = {
        "MODEL.DEVICE": "cpu",
        "MODEL.SEED": args.seed,
        "DATASETS.ROOT": args.output / "data",
        "DATALOADER.NUM_WORKERS": args.workers,
        "SOLVER.IMS_PER_BATCH": 16,
        "SOLVER.MAX_EPOCH": args.epochs,
        "SOLVER.ITERS_PER_EPOCH": args.iterations,
        "SOLVER.WARMUP_ITERS": args.iterations,
        "SOLVER.CHECKPOINT_PERIOD": 2,
        "SOLVER.CHECKPOINT_ITERS": args.checkpoint_iters,
        "SOLVER.LOG_PERIOD": 1,
        "TEST.EVAL_PERIOD": 1,
        "OUTPUT_DIR": folder / f"stage{stage}",
    }
    if stage == 2:
        options["MODEL.WEIGHTS"] = folder / "stage1" / "model_best.pth"
    config = REPO / "configs" / "demo" / f"base_stage{stage}.yml"
    command = [sys.executable, str(REPO / "tools" / "train_net.py"), "--config-file", str(config)]
    if args.processes > 1:
        command += ["--num-gpus", str(args.processes), "--max-restarts", str(args.kills)]
    else:
        command.append("--resume")
    return command + [str(part) for option in options.items() for part in option]


def time_uninterrupted(args: argparse.Namespace, stage: int) -> list[float]:
    """Train without a kill; return the seconds of its start (0), of iteration 1, 2, … and of its end."""
    run = Run(train_command(args, stage, "uninterrupted"))
    seconds = [0.0, *(second for _, second in run.iterations()), time.perf_counter() - run.started]
    run.check()
    return seconds


def draw_moments(rng: random.Random, count: int, seconds: dict[int, list[float]]) -> dict[int, list[Moment]]:
    """Draw `count` moments, uniform over the time of all stages, in order of time within each stage."""
    total = sum(times[-1] for times in seconds.values())
    moments: dict[int, list[Moment]] = {stage: [] for stage in seconds}
    for second in sorted(rng.uniform(0, total) for _ in range(count)):
        for stage, times in seconds.items():
            if second < times[-1]:
                iteration = max(i for i, done in enumerate(times[:-1]) if done <= second)
                moments[stage].append(Moment(iteration, second - times[iteration]))
                break
            second -= times[-1]
    return moments


def train_with_kills(args: argparse.Namespace, stage: int, moments: list[Moment]) -> list[dict[str, Any]]:
    """Kill the training at each of `moments`, then let it finish; return a row for each kill."""
    rows = []
    for moment in tqdm(moments, desc=f"stage {stage}", unit="kill", disable=not sys.stderr.isatty()):
        run = Run(train_command(args, stage, "killed"))
        last = run.kill_at(moment)
        rows.append(
            {
                "stage": stage,
                "kill drawn": f"{moment.seconds:.2f} s after iteration {moment.iteration}",
                "started from": run.resumed_at or 0,
                "killed after": "had finished" if last is None else last or "start-up",
            }
        )
        print(" ", *rows[-1].values(), sep="  ", flush=True)
    run = Run(train_command(args, stage, "killed"))
    for _ in run.iterations():
        pass
    run.check()
    return rows


def train_with_ranks_killed(
    args: argparse.Namespace, stage: int, moments: list[Moment], rng: random.Random
) -> list[dict[str, Any]]:
    """Kill a process of the run, drawn by `rng`, at each of `moments`, from which it goes on by itself."""
    run = Run(train_command(args, stage, "killed"))
    rows: list[dict[str, Any]] = []
    seen: set[int] = set()

    def kill(draw: int) -> None:
        while not (ranks := run.ranks()) and run.process.poll() is None:
            time.sleep(0.05)
        if ranks:
            seen.update(ranks, *map(children, ranks))
            os.kill(ranks[draw % len(ranks)], signal.SIGKILL)

    left, timer, last = iter(moments), None, 0
    moment = next(left, None)
    for iteration, _ in chain([(0, 0.0)], run.iterations()):
        if iteration == 0 and timer:
            rows[-1]["killed after"] = last or "start-up"
            print(" ", *rows[-1].values(), sep="  ", flush=True)
            moment, timer = next(left, None), None
        last = iteration
        if moment and not timer and iteration >= moment.iteration:
            draw = rng.randrange(args.processes)
            timer = threading.Timer(moment.seconds, kill, [draw])
            timer.start()
            drawn = f"process {draw}, {moment.seconds:.2f} s after iteration {moment.iteration}"
            rows.append({"stage": stage, "kill drawn": drawn, "killed after": "had finished"})
    if timer:
        timer.cancel()
    run.check()
    if alive := [pid for pid in seen if b"spawn_main" in command_line(pid)]:
        raise UserError(f"processes {alive} of a finished training are still there")
    return rows


def compare(first: Path, second: Path) -> dict[str, bool]:
    """Compare two finished runs bit for bit: final training state, best weights, logged losses."""
    states = [_training_state(folder / "model_final.pth") for folder in (first, second)]
    best = [_training_state(folder / "model_best.pth") for folder in (first, second)]
    return {
        "final weights": _same(states[0]["model"], states[1]["model"]),
        "optimiser, schedule, random states": _same(states[0], states[1]),
        "best weights": _same(best[0]["model"], best[1]["model"]),
        "logged losses and metrics": _logged(first) == _logged(second),
    }


def _training_state(path: Path) -> dict[str, Any]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    del state["meta"]["config"]  # it names the output folder
    for name in TIMES:
        state["events"]["history"].pop(name, None)
    return state


def _logged(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return first == second


def render_data(args: argparse.Namespace) -> None:
    command = [sys.executable, str(REPO / "tools" / "make_synthetic_benchmark.py"), "--benchmark", "CARGO"]
    sizes = ["--train-ids", "16", "--test-ids", "8", "--images-per-camera", "2", "--size", "64x32"]
    rendered = subprocess.run(
        [*command, "--root", str(args.output / "data"), *sizes],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    check_ended_well("rendering the data", rendered.returncode, rendered.stderr.splitlines())


@command(build_parser)
def main(args: argparse.Namespace) -> int:
    args.output = args.output.absolute()
    check_output_folder(args.output, "--output")
    for name in ("uninterrupted", "killed"):
        shutil.rmtree(args.output / name, ignore_errors=True)
    render_data(args)
    seconds = {stage: time_uninterrupted(args, stage) for stage in STAGES}
    print("uninterrupted:", *(f"stage {s} {times[-1]:.1f} s" for s, times in seconds.items()), flush=True)
    moments = draw_moments(random.Random(args.seed), args.kills, seconds)
    if args.processes > 1:
        rng = random.Random(args.seed)
        rows = [row for stage in STAGES for row in train_with_ranks_killed(args, stage, moments[stage], rng)]
    else:
        rows = [row for stage in STAGES for row in train_with_kills(args, stage, moments[stage])]
    print(tabulate(rows, headers="keys", showindex=range(1, len(rows) + 1), tablefmt="github"))
    killed = sum(row["killed after"] != "had finished" for row in rows)
    print(f"\n{killed} kills, {args.epochs} epochs of {args.iterations} iterations in each stage")
    runs = [args.output / name for name in ("uninterrupted", "killed")]
    equal = {stage: compare(*(run / f"stage{stage}" for run in runs)) for stage in STAGES}
    for stage, found in equal.items():
        for what, is_equal in found.items():
            print(f"stage {stage}, {what}: {'equal' if is_equal else 'DIFFERENT'}")
    return 0 if all(all(found.values()) for found in equal.values()) else 1
