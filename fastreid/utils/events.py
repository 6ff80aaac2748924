"""Scalars of a training run: :func:`put_scalar` records them, writers show and store them."""

import datetime
import json
import logging
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastreid.utils import comm
from fastreid.utils.documents import parse_json
from fastreid.utils.env import peak_memory
from fastreid.utils.file_io import atomic_write, set_aside
from fastreid.utils.logger import warn_once

logger = logging.getLogger(__name__)

_active: list["EventStorage"] = []


def put_scalar(name: str, value: float | torch.Tensor) -> None:
    """Record `value` under `name` for the current iteration of the running training loop.

    A 0-dim tensor stays where it is until a writer needs the number, so recording never waits for
    the GPU. It is taken to be of this rank's share of the batch, and logged as the mean over the ranks; a
    plain number is logged as rank 0 has it. Outside a training loop nothing happens.
    """
    if _active:
        _active[-1].put_scalar(name, value)


class EventStorage:
    """The recent history of every scalar. As a context manager it receives what `put_scalar` records.

    Args:
        window: how many values a smoothed value is the mean of.
    """

    def __init__(self, window: int = 20) -> None:
        self.window = window
        self.iteration = 0
        self._history: dict[str, deque[float | torch.Tensor]] = {}
        self._updated: set[str] = set()

    def __enter__(self) -> "EventStorage":
        _active.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _active.remove(self)

    def put_scalar(self, name: str, value: float | torch.Tensor) -> None:
        if isinstance(value, torch.Tensor):
            if value.numel() != 1:
                raise ValueError(f"scalar {name!r}: expected one number, got shape {tuple(value.shape)}")
            value = value.detach().clone()
        self._history.setdefault(name, deque(maxlen=self.window)).append(value)
        self._updated.add(name)

    def latest(self, name: str) -> float:
        """The last value. KeyError for a name that was never recorded."""
        return float(self._history[name][-1])

    def smoothed(self, name: str) -> float:
        """The mean of the last `window` values. KeyError for a name that was never recorded."""
        return sum(self._numbers(name)) / len(self._history[name])

    def take_updates(self) -> dict[str, float]:
        """The latest value of each scalar that was recorded since the last call."""
        updates = {name: self.latest(name) for name in self._history if name in self._updated}
        self._updated.clear()
        return updates

    def average_over_ranks(self) -> None:
        """Replace the tensors recorded since the last call by their means over the ranks.

        To be called on all ranks, when the numbers are needed. Of a rank that has not recorded a name as
        often as this one, nothing is taken.
        """
        if comm.get_world_size() == 1:
            return
        own = {name: [float(v) for v in self._history[name] if torch.is_tensor(v)] for name in self._history}
        gathered = comm.all_gather_object(own)
        for name, history in self._history.items():
            shares = [rank[name] for rank in gathered if len(rank.get(name, ())) == len(own[name])]
            means = (sum(values) / len(values) for values in zip(*shares, strict=True))
            averaged = [next(means) if torch.is_tensor(value) else value for value in history]
            self._history[name] = deque(averaged, self.window)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, so that a resumed run logs what the uninterrupted one would have; for all ranks."""
        self.average_over_ranks()
        history = {name: self._numbers(name) for name in self._history}
        return {"history": history, "updated": sorted(self._updated)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        history = state["history"].items()
        self._history = {str(name): deque(map(float, values), self.window) for name, values in history}
        self._updated = set(state["updated"]) & set(self._history)

    def _numbers(self, name: str) -> list[float]:
        return [float(value) for value in self._history[name]]


class Writer:
    """A place for scalars that :class:`fastreid.engine.hooks.PeriodicWriter` calls on the main process."""

    def write(self, storage: EventStorage, updates: dict[str, float]) -> None:
        raise NotImplementedError

    def close(self) -> None: ...


@dataclass(eq=False)
class ConsoleWriter(Writer):
    """One line a call: progress, time left, losses, learning rate, timings, memory.

    Args:
        max_iteration: iterations of the whole run.
        iters_per_epoch: to show the epoch.
    """

    max_iteration: int
    iters_per_epoch: int

    def write(self, storage: EventStorage, updates: dict[str, float]) -> None:
        if "total_loss" not in updates:
            return
        iteration = storage.iteration
        epoch = (iteration - 1) // self.iters_per_epoch + 1
        epochs = self.max_iteration // self.iters_per_epoch
        parts = [f"epoch {epoch}/{epochs}  iter {iteration}/{self.max_iteration}"]
        if "time" in updates:
            seconds = storage.smoothed("time") * (self.max_iteration - iteration)
            parts.append(f"eta {datetime.timedelta(seconds=int(seconds))}")
        shown = [name for name in updates if name not in ("time", "data_time", "lr")]
        shown.sort(key=lambda name: (name != "total_loss", not name.startswith("loss")))
        parts += [f"{name} {storage.smoothed(name):.4g}" for name in shown]
        if "lr" in updates:
            parts.append(f"lr {updates['lr']:.4g}")
        parts += [
            f"{name} {storage.smoothed(name):.3f} s" for name in ("time", "data_time") if name in updates
        ]
        on_gpu = torch.cuda.is_available() and torch.cuda.max_memory_allocated()
        parts.append(f"memory {(on_gpu or peak_memory()) / 2**20:.0f} MB")
        logger.info("  ".join(parts))


class JSONWriter(Writer):
    """One JSON object a line: ``{"iteration": …, name: latest value, …}``.

    A resumed run (`start_iteration` > 0) drops the lines of iterations that it will repeat, and a line
    that an interruption left half written. Of a file with other lines that cannot be read it keeps a copy.
    """

    def __init__(self, path: str | Path, start_iteration: int = 0) -> None:
        path = Path(path)
        if path.exists():
            _keep_lines_until(path, start_iteration)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (open for the whole run)

    def write(self, storage: EventStorage, updates: dict[str, float]) -> None:
        self._file.write(json.dumps({"iteration": storage.iteration, **updates}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoardWriter(Writer):
    """Event files for TensorBoard in `folder`. Without the tensorboard package: one warning, no files."""

    def __init__(self, folder: str | Path, start_iteration: int = 0) -> None:
        self._writer = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            warn_once(__name__, "tensorboard is not installed: no files of it (metrics.json has the numbers)")
            return
        self._writer = SummaryWriter(str(folder), purge_step=start_iteration + 1 if start_iteration else None)

    def write(self, storage: EventStorage, updates: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in updates.items():
                self._writer.add_scalar(name, value, storage.iteration, walltime=time.time())

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _keep_lines_until(path: Path, iteration: int) -> None:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept, bad = [], []
    for number, line in enumerate(lines, 1):
        try:
            if parse_json(line)["iteration"] <= iteration:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            bad.append(number)
    if bad == [len(lines)]:
        logger.info("%s: dropped a line that was not completely written", path)
    elif bad:
        copy = set_aside(path)
        problem = "%s: %d of %d lines cannot be read and are left out; as it was, it is %s"
        logger.warning(problem, path, len(bad), len(lines), copy)
    with atomic_write(path, "w") as file:
        file.writelines(kept)
