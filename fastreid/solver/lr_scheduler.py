"""Learning rate schedules: closed forms of the iteration number."""

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import Protocol

import torch

from fastreid.config import NOT_NEGATIVE, CfgNode, Key
from fastreid.utils.registry import Registry, requiring

Shape = Callable[[int, float], float]  # (iteration, base learning rate) -> learning rate without warm-up

SCHEDULE_REGISTRY = Registry(
    "schedule", "SOLVER.SCHED", requiring("spans_run", "linear_warmup", see="fastreid/solver/lr_scheduler.py")
)


class Schedule(Protocol):
    """A registered schedule: (cfg, iterations of an epoch) -> the learning rate without warm-up.

    It may have keys of its own, as ``KEYS``.
    """

    spans_run: bool
    """More epochs change the rates of the first ones."""
    linear_warmup: bool
    """The warm-up is linear, whatever WARMUP_METHOD says."""

    def __call__(self, cfg: CfgNode, iters_per_epoch: int) -> Shape: ...


MULTI_STEP = {
    "STEPS": Key([50], "epochs at which multi-step schedules multiply by GAMMA", NOT_NEGATIVE),
    "GAMMA": Key(0.1, "of multi-step schedules", NOT_NEGATIVE),
}
COSINE = {
    "ETA_MIN_LR": Key(1.6e-6, "where cosine annealing ends", NOT_NEGATIVE),
    "DELAY_EPOCHS": Key(0, "epochs before the cosine falls, at the earliest after the warm-up", NOT_NEGATIVE),
}


@SCHEDULE_REGISTRY.register("MultiStepLR", spans_run=False, linear_warmup=False, KEYS={"SOLVER": MULTI_STEP})
def multi_step(cfg: CfgNode, iters_per_epoch: int) -> Shape:
    """Multiply the base rate by GAMMA at each epoch of STEPS that has been reached."""
    milestones = sorted(step * iters_per_epoch for step in cfg.SOLVER.STEPS)
    return lambda iteration, base: base * cfg.SOLVER.GAMMA ** bisect_right(milestones, iteration)


@SCHEDULE_REGISTRY.register("LinearWarmupMultiStepDecayLRScheduler", spans_run=False, linear_warmup=True)
def linear_warmup_multi_step(cfg: CfgNode, iters_per_epoch: int) -> Shape:
    """Do as `multi_step`; the warm-up is linear."""
    return multi_step(cfg, iters_per_epoch)


@SCHEDULE_REGISTRY.register("CosineAnnealingLR", spans_run=True, linear_warmup=False, KEYS={"SOLVER": COSINE})
def cosine_annealing(cfg: CfgNode, iters_per_epoch: int) -> Shape:
    """Fall by half a cosine from the base rate to ETA_MIN_LR in the run's last iteration.

    As in fast-reid it begins after the warm-up, or after DELAY_EPOCHS if that is later.
    """
    start = max(cfg.SOLVER.DELAY_EPOCHS * iters_per_epoch, cfg.SOLVER.WARMUP_ITERS)
    length = max(cfg.SOLVER.MAX_EPOCH * iters_per_epoch - 1 - start, 1)
    lowest = cfg.SOLVER.ETA_MIN_LR

    def shape(iteration: int, base: float) -> float:
        progress = min(max((iteration - start) / length, 0.0), 1.0)
        return lowest + (base - lowest) * (1 + math.cos(math.pi * progress)) / 2

    return shape


def warmup_factor(iteration: int, iters: int, start: float, method: str) -> float:
    """Return what the learning rate is multiplied by: `start` rising to 1 over `iters` iterations, then 1."""
    if iteration >= iters:
        return 1.0
    return start if method == "constant" else start + (1.0 - start) * iteration / iters


class LRSchedule:
    """Set the learning rate of every parameter group; call :meth:`step` once after each iteration.

    The rate of iteration t (from 0) is `warmup(t) * shape(t, base rate of the group)`: a function of t
    alone, so resuming restores one number.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, shape: Shape, warmup: Callable[[int], float] = lambda _: 1.0
    ) -> None:
        self.optimizer = optimizer
        self.shape = shape
        self.warmup = warmup
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.iteration = 0
        self._apply()

    def step(self) -> None:
        self.iteration += 1
        self._apply()

    def get_last_lr(self) -> list[float]:
        """Return the rate of each group for the iteration that comes next."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, int]:
        return {"iteration": self.iteration}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.iteration = state["iteration"]
        self._apply()

    def _apply(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.warmup(self.iteration) * self.shape(self.iteration, base)


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer, iters_per_epoch: int) -> LRSchedule:
    """Return the schedule of SOLVER.SCHED with SOLVER.WARMUP_*; its base rates are those of `optimizer`.

    Raises:
        UserError: for an unknown SOLVER.SCHED.
    """
    solver = cfg.SOLVER
    schedule = cfg.entry("SOLVER.SCHED")
    method = "linear" if schedule.linear_warmup else solver.WARMUP_METHOD
    return LRSchedule(
        optimizer,
        shape=schedule(cfg, iters_per_epoch),
        warmup=lambda t: warmup_factor(t, solver.WARMUP_ITERS, solver.WARMUP_FACTOR, method),
    )
