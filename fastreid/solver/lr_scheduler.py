"""Learning rate schedules: closed forms of the iteration number."""

import math
from bisect import bisect_right
from collections.abc import Callable

import torch

from fastreid.config import CfgNode
from fastreid.utils.errors import UserError, nearest_name

Shape = Callable[[int, float], float]  # (iteration, base learning rate) -> learning rate without warm-up


def multi_step(cfg: CfgNode, iters_per_epoch: int) -> Shape:
    """The base rate times GAMMA for each epoch of STEPS that has been reached."""
    milestones = sorted(step * iters_per_epoch for step in cfg.SOLVER.STEPS)
    return lambda iteration, base: base * cfg.SOLVER.GAMMA ** bisect_right(milestones, iteration)


def cosine_annealing(cfg: CfgNode, iters_per_epoch: int) -> Shape:
    """Half a cosine from the base rate to ETA_MIN_LR in the run's last iteration.

    As in fast-reid it begins after the warm-up, or after DELAY_EPOCHS if that is later.
    """
    start = max(cfg.SOLVER.DELAY_EPOCHS * iters_per_epoch, cfg.SOLVER.WARMUP_ITERS)
    length = max(cfg.SOLVER.MAX_EPOCH * iters_per_epoch - 1 - start, 1)
    lowest = cfg.SOLVER.ETA_MIN_LR

    def shape(iteration: int, base: float) -> float:
        progress = min(max((iteration - start) / length, 0.0), 1.0)
        return lowest + (base - lowest) * (1 + math.cos(math.pi * progress)) / 2

    return shape


SCHEDULES: dict[str, Callable[[CfgNode, int], Shape]] = {
    "MultiStepLR": multi_step,
    "CosineAnnealingLR": cosine_annealing,
    "LinearWarmupMultiStepDecayLRScheduler": multi_step,  # the warm-up is linear whatever WARMUP_METHOD says
}


def warmup_factor(iteration: int, iters: int, start: float, method: str) -> float:
    """What the learning rate is multiplied by: `start` rising to 1 over `iters` iterations, then 1."""
    if iteration >= iters:
        return 1.0
    return start if method == "constant" else start + (1.0 - start) * iteration / iters


class LRSchedule:
    """Sets the learning rate of every parameter group; call :meth:`step` once after each iteration.

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

    def lr_at(self, iteration: int, base: float) -> float:
        return self.warmup(iteration) * self.shape(iteration, base)

    def get_last_lr(self) -> list[float]:
        """The rate of each group for the iteration that comes next."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, int]:
        return {"iteration": self.iteration}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.iteration = state["iteration"]
        self._apply()

    def _apply(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.lr_at(self.iteration, base)


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer, iters_per_epoch: int) -> LRSchedule:
    """The schedule named by SOLVER.SCHED with SOLVER.WARMUP_*; the rates of `optimizer` are its base rates.

    Raises:
        UserError: for an unknown SOLVER.SCHED.
    """
    solver = cfg.SOLVER
    if solver.SCHED not in SCHEDULES:
        known = list(SCHEDULES)
        near = nearest_name(solver.SCHED, known)
        raise UserError(f"SOLVER.SCHED {solver.SCHED!r} is unknown.{near} Known: {', '.join(known)}")
    always_linear = solver.SCHED == "LinearWarmupMultiStepDecayLRScheduler"
    method = "linear" if always_linear else solver.WARMUP_METHOD
    return LRSchedule(
        optimizer,
        shape=SCHEDULES[solver.SCHED](cfg, iters_per_epoch),
        warmup=lambda t: warmup_factor(t, solver.WARMUP_ITERS, solver.WARMUP_FACTOR, method),
    )
