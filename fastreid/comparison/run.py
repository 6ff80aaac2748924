"""The trainings of a comparison as processes of the training program, several at a time."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

import fastreid
from fastreid.comparison.files import COST, read_json
from fastreid.comparison.plan import Training
from fastreid.utils.env import available_cores, resolve_device
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, named_output

logger = logging.getLogger(__name__)

CONSOLE = "console.log"
POLL = 0.5  # seconds between two looks at the processes
ITERATION = re.compile(rb"iter (\d+)/(\d+)")
TAIL = 4096  # bytes at the end of a console log that hold its last line of progress


class Running(NamedTuple):
    """A training that runs, and where its console log was when it began."""

    training: Training
    process: subprocess.Popen
    log_start: int


class Failure(NamedTuple):
    """A training that ended before its time."""

    training: Training
    words: str


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
        self.active: dict[int, Running] = {}  # by their slots
        self.failures: list[Failure] = []

    def __enter__(self) -> "Trainings":
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop what still trains: it saves where it is, and the same comparison goes on from there."""
        for running in self.active.values():
            running.process.send_signal(signal.SIGTERM)
        for running in self.active.values():
            running.process.wait()

    def run(self) -> None:
        """Train all that is not finished, as far as it does not fail."""
        done = len(self.trainings) - len(self.waiting)
        bar = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} < {remaining}{postfix}"
        total = len(self.trainings)
        with tqdm(total=total, initial=done, desc="trainings", bar_format=bar, disable=None) as shown:
            while self.waiting or self.active:
                self._start()
                time.sleep(POLL)
                done += self._collect()
                self._show(shown, done)

    def check(self) -> None:
        """Raise a UserError if a training failed, or could not begin because of one that did."""
        if not self.failures:
            return
        first, words = self.failures[0]
        raise UserError(
            f"{len(self.failures)} of {len(self.trainings)} trainings failed, first {first.folder}: {words}",
            f"see {first.folder / CONSOLE}; the same command goes on with what is left",
        )

    def _start(self) -> None:
        """Begin trainings as long as there are slots; give up those whose start has failed."""
        broken = {failure.training.final for failure in self.failures}
        for lost in [training for training in self.waiting if training.weights in broken]:
            self.waiting.remove(lost)
            self.failures.append(Failure(lost, f"{lost.weights} is missing, whose training failed"))
        for slot in range(self.processes):
            ready = (t for t in self.waiting if t.weights is None or self._is_done(t.weights))
            if slot not in self.active and (training := next(ready, None)):
                self.waiting.remove(training)
                self.active[slot] = _launch(training, slot, self.processes)

    def _is_done(self, final: Path) -> bool:
        return next(t.finished for t in self.trainings if t.final == final)

    def _collect(self) -> int:
        """Take out what has ended; return how many ended well."""
        ended = [slot for slot, running in self.active.items() if running.process.poll() is not None]
        done = 0
        for running in [self.active.pop(slot) for slot in ended]:
            if running.process.returncode == 0 and running.training.finished:
                done += 1
            else:
                self.failures.append(Failure(running.training, _last_words(running)))
        return done

    def _show(self, bar: tqdm, done: int) -> None:
        names = [f"{r.training.contender.name} {r.training.folder.name}" for r in self.active.values()]
        bar.set_postfix_str(", ".join(names), refresh=False)
        bar.n = done + sum(map(_progress, self.active.values()))
        bar.refresh()


def _command(*arguments: str) -> list[str]:
    """Return the command that runs ``fastreid ARGUMENTS`` of this very package, wherever it is called."""
    root = str(Path(fastreid.__file__).resolve().parents[1])
    # The first entry of the path would be the working directory, where another package of the name may be.
    program = f"import sys; sys.path[0] = {root!r}; from fastreid.cli import main; main()"
    return [sys.executable, "-c", program, *arguments]


def _launch(training: Training, slot: int, processes: int) -> Running:
    arguments = ["train", "--config-file", training.contender.config_file, "--resume", *training.options]
    devices = torch.cuda.device_count()
    if devices > 1 and resolve_device(training.contender.cfg.MODEL.DEVICE) == torch.device("cuda"):
        arguments += ["MODEL.DEVICE", f"cuda:{slot % devices}"]
    threads = str(max(1, available_cores() // processes))
    with named_output(training.planned), atomic_write(training.planned, "w") as file:
        file.write(training.config().dump())
    with open(training.folder / CONSOLE, "ab") as log:
        log_start = log.tell()  # before the process moves it
        process = subprocess.Popen(
            _command(*arguments),
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": threads, **os.environ},
            start_new_session=True,  # Ctrl-C reaches this program alone, which stops the others in order
        )
        return Running(training, process, log_start)


def _console(running: Running, tail: int | None = None) -> bytes:
    """Return what the training has printed, or the end of it; nothing if somebody has removed the log."""
    path = running.training.folder / CONSOLE
    if not path.exists():
        return b""
    with open(path, "rb") as log:
        size = os.path.getsize(path)
        log.seek(running.log_start if tail is None else max(running.log_start, size - tail))
        return log.read()


def _last_words(running: Running) -> str:
    """Return its exit code and its error, or else its last line."""
    lines = [line for line in _console(running).decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return f"exit code {running.process.returncode}, {(errors or lines or ['nothing printed'])[-1]}"


def _progress(running: Running) -> float:
    """Return the share of its iterations that a training has done, by its console."""
    found = ITERATION.findall(_console(running, TAIL))
    if not found:
        return 0.0
    done, total = map(int, found[-1])
    return done / total


def measure_costs(trainings: Sequence[Training], batch_size: int) -> None:
    """Profile the final model of each contender's first finished seed, one after the other.

    What was measured with this batch size on this device is kept. A model that cannot be profiled costs a
    warning, and has no figures.
    """
    first = {training.contender.name: training for training in reversed(trainings) if training.finished}
    left = [training for training in first.values() if not _is_measured(training, batch_size)]
    for training in tqdm(left, desc="costs", unit="method", disable=None):
        arguments = ["profile", "--config-file", str(training.folder / "config.yaml"), "--batch-size"]
        arguments += [str(batch_size), "--output", str(training.folder / COST), "MODEL.WEIGHTS"]
        done = subprocess.run(
            _command(*arguments, str(training.final)), capture_output=True, text=True, check=False
        )
        if done.returncode:
            words = (done.stderr.strip().splitlines() or ["nothing printed"])[-1]
            logger.warning("%s cannot be profiled: exit code %d, %s", training.final, done.returncode, words)


def _is_measured(training: Training, batch_size: int) -> bool:
    path = training.folder / COST
    if not path.exists():
        return False
    device = resolve_device(training.contender.cfg.MODEL.DEVICE)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    try:
        report = read_json(path)
    except UserError:
        return False
    return report["batch_size"] == batch_size and report["device"] == name
