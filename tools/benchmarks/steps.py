"""Steps of the trainer on random pictures, by the clock."""

import time
from collections.abc import Callable, Iterable
from itertools import repeat

import torch
from torch import nn

from fastreid.config import CfgNode
from fastreid.engine import HookBase
from fastreid.engine.train_loop import SimpleTrainer
from fastreid.solver import build_gradient_clipper
from fastreid.structures import Batch
from fastreid.utils.env import amp_dtype


def training_batch(cfg: CfgNode, count: int, pinned: bool) -> Batch:
    """Draw pictures with labels, four of each identity."""
    numbers, source = torch.arange(count), torch.Generator().manual_seed(0)
    size = (count, 3, *cfg.INPUT.SIZE_TRAIN)
    batch = {
        "images": torch.randint(0, 256, size, dtype=torch.uint8, generator=source),
        "targets": numbers // 4 % cfg.MODEL.HEADS.NUM_CLASSES,
        "viewids": numbers % cfg.MODEL.SDMODEL.VIEW_NUM,
        "camids": numbers % cfg.MODEL.SDMODEL.VIEW_NUM,
    }
    if pinned:
        batch = {name: values.pin_memory() for name, values in batch.items()}
    return batch | {"img_paths": [f"{number}.jpg" for number in range(count)]}


class StepClock(HookBase):
    """Takes the time of the last steps of a training, after the first `warm_up` ones."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.moments: list[float] = []

    def after_step(self) -> None:
        if self.trainer.iteration in (self.warm_up, self.trainer.max_iteration):
            if self.trainer.device.type == "cuda":
                torch.cuda.synchronize()
            self.moments.append(time.perf_counter())


def seconds_of_steps(
    cfg: CfgNode,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    make_loader: Callable[[int], Iterable[Batch]],
    steps: int,
) -> float:
    """Measure `steps` steps of the trainer, after as many to warm up."""
    amp = amp_dtype(cfg.SOLVER.AMP, model.device)
    options = {"amp_dtype": amp, "clip": build_gradient_clipper(cfg)}
    trainer = SimpleTrainer(model, optimizer, make_loader, 1, 2 * steps, **options)
    clock = StepClock(steps)
    trainer.register_hooks([clock])
    trainer.train()
    begin, end = clock.moments
    return end - begin


def always(batch: Batch) -> Callable[[int], Iterable[Batch]]:
    """Return what makes endless batches that are all `batch`."""
    return lambda start: repeat(batch)
