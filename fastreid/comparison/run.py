"""The trainings of a comparison as processes of the training program, several at a time."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from fastreid.comparison.plan import Training
from fastreid.utils.env import available_cores, resolve_device
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, named_output

CONSOLE, COST = "console.log", "cost.json"
POLL = 0.5  # seconds between two looks at the processes
ITERATION = re.compile(rb"iter (\d+)/(\d+)")
TAIL = 4096  # bytes at the end of a console log that hold its last line of progress


class Trainings:
    """Processes that train, each in its own folder with its own console log; they end with the block.

    A training that another one starts from is finished first. One that fails stops those that need it, and
    no others.

    Args:
        trainings: in the order in which they begin.
        processes: at most so many at a time; on several CUDA devices they take turns.
    """

    def __init__(self, trainings: Sequence[Training], processes: int) -> None:
        self.trainings, self.processes = trainings, processes
        self.waiting = [training for training in trainings if not training.finished]
        self.active: dict[int, tuple[Training, subprocess.Popen]] = {}  # by their slots
        self.failed: list[tuple[Training, int]] = []

    def __enter__(self) -> "Trainings":
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop what still trains: it saves where it is, and the same comparison goes on from there."""
        for _, process in self.active.values():
            process.send_signal(signal.SIGTERM)
        for _, process in self.active.values():
            process.wait()

    def run(self) -> None:
        """Train all that is not finished.

        Raises:
            UserError: at the end, if one failed.
        """
        done = len(self.trainings) - len(self.waiting)
        bar = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} < {remaining}{postfix}"
        with tqdm(total=len(self.trainings), initial=done, desc="trainings", bar_format=bar) as shown:
            while self.waiting or self.active:
                self._start()
                time.sleep(POLL)
                done += self._collect()
                self._show(shown, done)
        self._complain()

    def _start(self) -> None:
        """Begin trainings as long as there are slots; drop those whose start has failed."""
        broken = {training.final for training, _ in self.failed}
        self.waiting = [training for training in self.waiting if training.weights not in broken]
        for slot in range(self.processes):
            ready = (t for t in self.waiting if t.weights is None or self._is_done(t.weights))
            if slot not in self.active and (training := next(ready, None)):
                self.waiting.remove(training)
                self.active[slot] = training, _launch(training, slot, self.processes)

    def _is_done(self, final: Path) -> bool:
        return next(t.finished for t in self.trainings if t.final == final)

    def _collect(self) -> int:
        """Take out what has ended; return how many ended well."""
        ended = [slot for slot, (_, process) in self.active.items() if process.poll() is not None]
        trainings = [self.active.pop(slot) for slot in ended]
        failed = [(t, p.returncode) for t, p in trainings if p.returncode or not t.finished]
        self.failed += failed
        return len(trainings) - len(failed)

    def _show(self, bar: tqdm, done: int) -> None:
        running = [training for training, _ in self.active.values()]
        bar.set_postfix_str(", ".join(f"{t.contender.name} {t.folder.name}" for t in running), refresh=False)
        bar.n = done + sum(map(_progress, running))
        bar.refresh()

    def _complain(self) -> None:
        if not self.failed:
            return
        training, code = self.failed[0]
        log = training.folder / CONSOLE
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        last = lines[-1] if lines else "nothing printed"
        raise UserError(
            f"{len(self.failed)} of {len(self.trainings)} trainings failed, first {training.folder} with exit"
            f" code {code}: {last}",
            f"see {log}; the same command goes on with what is left",
        )


def _launch(training: Training, slot: int, processes: int) -> subprocess.Popen:
    arguments = ["train", "--config-file", training.contender.config_file, "--resume", *training.options]
    devices = torch.cuda.device_count()
    if devices > 1 and resolve_device(training.contender.cfg.MODEL.DEVICE) == torch.device("cuda"):
        arguments += ["MODEL.DEVICE", f"cuda:{slot % devices}"]
    threads = str(max(1, available_cores() // processes))
    with named_output(training.planned), atomic_write(training.planned, "w") as file:
        file.write(training.config().dump())
    with open(training.folder / CONSOLE, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "fastreid", *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": threads, **os.environ},
            start_new_session=True,  # Ctrl-C reaches this program alone, which stops the others in order
        )


def _progress(training: Training) -> float:
    """Return the share of its iterations that a running training has done, by its console."""
    with open(training.folder / CONSOLE, "rb") as log:
        log.seek(max(0, os.path.getsize(log.name) - TAIL))
        found = ITERATION.findall(log.read())
    if not found:
        return 0.0
    done, total = map(int, found[-1])
    return done / total


def measure_costs(trainings: Sequence[Training], batch_size: int) -> None:
    """Profile the final model of each contender's first seed, one after the other, where that is not done.

    Raises:
        UserError: if one cannot be profiled.
    """
    first = {training.contender.name: training for training in reversed(trainings) if training.finished}
    left = [training for training in first.values() if not (training.folder / COST).exists()]
    for training in tqdm(left, desc="costs", unit="method"):
        arguments = ["profile", "--config-file", str(training.folder / "config.yaml"), "--batch-size"]
        arguments += [str(batch_size), "--output", str(training.folder / COST), "MODEL.WEIGHTS"]
        command = [sys.executable, "-m", "fastreid", *arguments, str(training.final)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"{training.final} cannot be profiled: {done.stderr.strip().splitlines()[-1]}")
