"""Learning rate schedules: closed forms of the iteration number."""

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import Protocol

import torch

from fastreid.config import NOT_NEGATIVE, CfgNode, Key
from fastreid.utils.registry import Registry, requiring

Shape = Callable[[int, float], float]  # (epochs counted so far, base learning rate) -> learning rate
Rate = Callable[[int, float], float]  # (iterations done, base learning rate) -> learning rate

SCHEDULE_REGISTRY = Registry(
    "schedule", "SOLVER.SCHED", requiring("spans_run", "linear_warmup", see="fastreid/solver/lr_scheduler.py")
)


class Schedule(Protocol):
    """A registered schedule: (cfg, epochs that count in the run) -> the learning rate by epochs counted.

    Which epochs count is told by `rate_without_warmup`. It may have keys of its own, as ``KEYS``.
    """

    spans_run: bool
    """More epochs change the rates of the first ones."""
    linear_warmup: bool
    """The warm-up is linear, whatever WARMUP_METHOD says."""

    def __call__(self, cfg: CfgNode, epochs: int) -> Shape: ...


MULTI_STEP = {
    "STEPS": Key([50], "epochs, from the warm-up's end, at which to multiply by GAMMA", NOT_NEGATIVE),
    "GAMMA": Key(0.1, "of multi-step schedules", NOT_NEGATIVE),
}
COSINE = {"ETA_MIN_LR": Key(1.6e-6, "where cosine annealing ends", NOT_NEGATIVE)}


@SCHEDULE_REGISTRY.register("MultiStepLR", spans_run=False, linear_warmup=False, KEYS={"SOLVER": MULTI_STEP})
def multi_step(cfg: CfgNode, epochs: int) -> Shape:
    """Multiply the base rate by GAMMA at each number of STEPS that has been counted."""
    steps, gamma = sorted(cfg.SOLVER.STEPS), cfg.SOLVER.GAMMA
    return lambda counted, base: base * gamma ** bisect_right(steps, counted)


@SCHEDULE_REGISTRY.register("LinearWarmupMultiStepDecayLRScheduler", spans_run=False, linear_warmup=True)
def linear_warmup_multi_step(cfg: CfgNode, epochs: int) -> Shape:
    """Do as `multi_step`; the warm-up is linear."""
    return multi_step(cfg, epochs)


@SCHEDULE_REGISTRY.register("CosineAnnealingLR", spans_run=True, linear_warmup=False, KEYS={"SOLVER": COSINE})
def cosine_annealing(cfg: CfgNode, epochs: int) -> Shape:
    """Fall by half a cosine from the base rate to ETA_MIN_LR, where all `epochs` are counted.

    After a warm-up that is in the run's last epoch; without one the run ends a step before it.
    """
    lowest = cfg.SOLVER.ETA_MIN_LR

    def shape(counted: int, base: float) -> float:
        progress = min(counted / epochs, 1.0)
        return lowest + (base - lowest) * (1 + math.cos(math.pi * progress)) / 2

    return shape


def rate_without_warmup(cfg: CfgNode, iters_per_epoch: int) -> Rate:
    """Return the learning rate of SOLVER.SCHED by iterations.

    As in fast-reid an epoch counts, once it is over, if WARMUP_ITERS iterations and more than DELAY_EPOCHS
    epochs are done then: the first is the one in which the warm-up ends, or the one after the delay.
    """
    solver = cfg.SOLVER
    warmup, delay = math.ceil(solver.WARMUP_ITERS / iters_per_epoch), solver.DELAY_EPOCHS
    shape = cfg.entry("SOLVER.SCHED")(cfg, max(solver.MAX_EPOCH - max(warmup, delay), 1))
    first = max(warmup, delay + 1)  # the first epoch that counts, from 1
    return lambda iteration, base: shape(max(iteration // iters_per_epoch - first + 1, 0), base)


def warmup_factor(iteration: int, iters: int, start: float, method: str) -> float:
    """Return what the learning rate is multiplied by: `start` rising to 1 over `iters` iterations, then 1."""
    if iteration >= iters:
        return 1.0
    return start if method == "constant" else start + (1.0 - start) * iteration / iters


class LRSchedule:
    """Set the learning rate of every parameter group; call :meth:`step` once after each iteration.

    The rate of iteration t (from 0) is `warmup(t) * rate(t, base rate of the group)`: a function of t
    alone, so resuming restores one number.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, rate: Rate, warmup: Callable[[int], float] = lambda _: 1.0
    ) -> None:
        self.optimizer = optimizer
        self.rate = rate
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
            group["lr"] = self.warmup(self.iteration) * self.rate(self.iteration, base)


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
        rate=rate_without_warmup(cfg, iters_per_epoch),
        warmup=lambda t: warmup_factor(t, solver.WARMUP_ITERS, solver.WARMUP_FACTOR, method),
    )
