"""Precise BatchNorm statistics (Wu & Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3)."""

import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastreid.engine.train_loop import HookBase, average_batch_norm_statistics
from fastreid.utils.env import preserved_rng_state
from fastreid.utils.events import EventStorage
from fastreid.utils.memory import memory_shortage_named

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class PreciseBN(HookBase):
    """Before an evaluation, sets running statistics to the mean over `num_iter` training batches.

    Registered before the checkpointer: what is evaluated is what was saved.

    Args:
        model: layers that train are changed, nothing else.
        make_loader: gives training batches; independent of the run's own loader.
        num_iter: batches.
        eval_period: epochs; 0 = only after the last.
    """

    model: nn.Module
    make_loader: Callable[[int], Iterable[dict]]
    num_iter: int
    eval_period: int

    def after_epoch(self) -> None:
        if self.trainer.is_due(self.eval_period):
            within = memory_shortage_named("taking BatchNorm statistics", "lower SOLVER.IMS_PER_BATCH")
            with preserved_rng_state(), EventStorage(), within:
                batches = itertools.islice(iter(self.make_loader(0)), self.num_iter)
                update_statistics(self.model, batches)


@torch.no_grad()
def update_statistics(model: nn.Module, batches: Iterable[dict]) -> None:
    """Replace the running mean and variance of training BatchNorm layers by their means over `batches`.

    The momentum of the layers, and every other buffer of the model, are the same afterwards.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    if not norms:
        return
    own = {id(buffer) for norm in norms for buffer in (norm.running_mean, norm.running_var)}
    others = [(buffer, buffer.clone()) for buffer in model.buffers() if id(buffer) not in own]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    for number, batch in enumerate(batches, 1):
        for norm in norms:
            norm.momentum = 1 / number  # a cumulative mean; torch's None for it waits for the device
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for buffer, value in others:
        buffer.copy_(value)
    average_batch_norm_statistics(norms)
    logger.info("Precise statistics of %d BatchNorm layers computed", len(norms))
