"""Trainings that the soak test starts as programs of their own, watches and kills."""

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastreid.utils.errors import UserError

ITERATION = re.compile(r"iter (\d+)/")
RESUMED = re.compile(r"Resumed from .* (\d+) iterations done")
RESTARTS = "; going on from the last checkpoint"  # what the launcher says when it starts all processes again


@dataclass(frozen=True)
class Moment:
    """A point of a run's time: `seconds` after iteration `iteration` was logged (0: after the start)."""

    iteration: int
    seconds: float


class Run:
    """One process of the training program, watched by what it prints."""

    def __init__(self, command: list[str]) -> None:
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment()
        )
        self.lines: list[str] = []
        self.resumed_at: int | None = None

    def iterations(self) -> Iterator[tuple[int, float]]:
        """Give ``(iteration, seconds since the start)`` as they are logged, until the process ends.

        A restart counts as iteration 0.
        """
        for line in self.process.stdout:
            self.lines.append(line)
            if RESTARTS in line:
                yield 0, time.perf_counter() - self.started
            if found := RESUMED.search(line):
                self.resumed_at = int(found[1])
            if found := ITERATION.search(line):
                yield int(found[1]), time.perf_counter() - self.started
        self.process.wait()

    def kill_at(self, moment: Moment) -> int | None:
        """Kill the process at `moment`; return the last iteration it logged, None if it had ended before."""
        timer = threading.Timer(moment.seconds, self.process.kill)
        if moment.iteration == 0:
            timer.start()
        last = 0
        for iteration, _ in self.iterations():
            last = iteration
            if iteration >= moment.iteration and timer.ident is None:
                timer.start()
        timer.cancel()
        if self.process.returncode == -9:
            return last
        self.check()
        return None

    def ranks(self) -> list[int]:
        """Give the numbers of the processes that train."""
        return [pid for pid in children(self.process.pid) if b"spawn_main" in command_line(pid)]

    def check(self) -> None:
        check_ended_well("a training", self.process.returncode, self.lines)


def children(pid: int) -> list[int]:
    """Give the processes that process `pid` has started; none when it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def command_line(pid: int) -> bytes:
    """Give the words of process `pid`, each with a zero byte behind it; nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def check_ended_well(what: str, code: int, lines: Sequence[str]) -> None:
    """Raise a `UserError` with the last of the `lines` that a process printed, if its code is not 0."""
    if code:
        said = lines[-1].strip().removeprefix("error: ") if lines else "it said nothing"
        raise UserError(f"{what} ended with code {code}: {said}")


def _environment() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"}
