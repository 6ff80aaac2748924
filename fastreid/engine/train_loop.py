"""The training loop: hooks around epochs and steps, and the step itself."""

import inspect
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastreid.engine.finite import FiniteCheck
from fastreid.solver import total_norm
from fastreid.structures import Results
from fastreid.utils import comm
from fastreid.utils.env import seed_all_rng
from fastreid.utils.events import EventStorage, Writer, put_scalar

logger = logging.getLogger(__name__)


class HookBase:
    """Something done around training, epochs or steps. `trainer` is set when the hook is registered.

    In `before_step` `trainer.iteration` counts the iterations done before this one; in `after_step` this
    one is counted too. Likewise `trainer.epoch` in `before_epoch` and `after_epoch`.
    """

    trainer: "TrainerBase"

    def before_train(self) -> None: ...

    def after_train(self) -> None:
        """Called however training ends, after an exception too."""

    def before_epoch(self) -> None: ...

    def after_epoch(self) -> None: ...

    def before_step(self) -> None: ...

    def after_step(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """Return what the hook needs to go on after a resume: plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TrainerBase:
    """Calls `run_step` for `max_epoch` epochs of `iters_per_epoch` iterations, with hooks around it.

    Attributes:
        iteration: iterations done, over all epochs.
        epoch: epochs done.
        storage: the scalars recorded by :func:`fastreid.utils.events.put_scalar`.
        writers: where scalars go; filled by a hook.
        best_metric: highest mean metric of an evaluation so far, in percent.
        last_results: of the last evaluation, by protocol.
        resumed_from: the name of the checkpoint that it goes on from; "": of none.
        may_stop_at_once: whether an interruption right now would lose no training.
    """

    def __init__(self, max_epoch: int, iters_per_epoch: int) -> None:
        self.max_epoch = max_epoch
        self.iters_per_epoch = iters_per_epoch
        self.iteration = 0
        self.epoch = 0
        self.storage = EventStorage()
        self.hooks: list[HookBase] = []
        self.writers: list[Writer] = []
        self.best_metric: float | None = None
        self.last_results: Results | None = None
        self.resumed_from = ""
        self.may_stop_at_once = False

    @property
    def max_iteration(self) -> int:
        return self.max_epoch * self.iters_per_epoch

    def is_due(self, period: int) -> bool:
        """Tell whether what comes every `period` epochs (0: never) and after the last one comes now."""
        return self.epoch == self.max_epoch or bool(self.epoch and period and self.epoch % period == 0)

    def register_hooks(self, hooks: Iterable[HookBase]) -> None:
        """Append hooks; at each point they are called in the order of registration."""
        for hook in hooks:
            hook.trainer = self
            self.hooks.append(hook)

    def train(self) -> None:
        """Train from the current `epoch` and `iteration` to the end."""
        with self.storage:
            try:
                self._call("before_train")
                if self.epoch < self.max_epoch:
                    self.start()
                while self.epoch < self.max_epoch:
                    self._train_epoch()
            finally:
                self._call("after_train")

    def confirm_steps(self) -> None:
        """Called before anything is written or evaluated; subclasses raise where a step has gone wrong."""

    def write_scalars(self, scalars: dict[str, float]) -> None:
        """Give `scalars` of the current iteration to all writers."""
        self.confirm_steps()
        for writer in self.writers:
            writer.write(self.storage, scalars)

    @contextmanager
    def stopping_at_once(self) -> Iterator[None]:
        """For work between two iterations whose results are not part of the training state."""
        self.may_stop_at_once = True
        try:
            yield
        finally:
            self.may_stop_at_once = False

    def save_checkpoint(self, name: str, mark_last: bool = True) -> None:
        """Write the training state as file `name`; subclasses implement it."""
        raise NotImplementedError

    def start(self) -> None:
        """Called between `before_train` of the hooks and the first epoch."""

    def run_step(self) -> None:
        """One iteration; subclasses implement it."""
        raise NotImplementedError

    def _train_epoch(self) -> None:
        self._call("before_epoch")
        while self.iteration < (self.epoch + 1) * self.iters_per_epoch:
            self.storage.iteration = self.iteration + 1
            self._call("before_step")
            self.run_step()
            self.iteration += 1
            self._call("after_step")
        self.confirm_steps()
        self.epoch += 1
        self._call("after_epoch")

    def _call(self, point: str) -> None:
        self.storage.iteration = max(self.storage.iteration, self.iteration)
        for hook in self.hooks:
            getattr(hook, point)()


class SimpleTrainer(TrainerBase):
    """One optimiser, one model whose training forward returns a dict of losses, which are summed.

    Everything random in iteration t depends on (`seed`, rank, t) alone: a resumed run, another number
    of loader workers, or an evaluation in between changes nothing. With several ranks the gradients are
    averaged, and after each step so are the running statistics of BatchNorm layers, so that all ranks
    always hold the same model and the statistics come from the whole batch.

    A step whose loss or gradients are not finite is never taken, see `FiniteCheck`.

    Args:
        model: on its device.
        optimizer: over parameters of `model`.
        make_loader: called once with the first iteration; gives an endless iterable of batches.
        amp_dtype: torch.bfloat16 or torch.float16 for mixed precision on CUDA; None for float32.
        max_skipped: with float16, steps skipped in a row for non-finite gradients before training stops.
        clip: clips the gradients of the parameters in place and returns their norm before it.
        seed: of everything random in the steps.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        make_loader: Callable[[int], Iterable[dict]],
        max_epoch: int,
        iters_per_epoch: int,
        *,
        amp_dtype: torch.dtype | None = None,
        max_skipped: int = 20,
        clip: Callable[[list[nn.Parameter]], torch.Tensor] = total_norm,
        seed: int = 0,
    ) -> None:
        super().__init__(max_epoch, iters_per_epoch)
        self.model = model
        self.optimizer = optimizer
        self.make_loader = make_loader
        self.device = next(model.parameters()).device
        self.amp_dtype = amp_dtype if self.device.type == "cuda" else None
        self.grad_scaler = torch.amp.GradScaler("cuda", enabled=self.amp_dtype == torch.float16)
        self.max_skipped = max_skipped
        self.finite_check = FiniteCheck(optimizer, self.device)
        self.clip = clip
        self.seed = seed
        self.parallel_model: nn.Module = model
        self._batches: Iterator[dict] = iter(())
        self._batch_norms = [
            module
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            and not isinstance(module, nn.SyncBatchNorm)
            and module.track_running_stats
        ]

    def parallelize(self) -> None:
        """Set up the averaging of gradients over the ranks; again after `requires_grad` has changed."""
        if comm.get_world_size() > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            # Buffers are equal on all ranks already; the option's name depends on torch's version.
            known = inspect.signature(DistributedDataParallel).parameters
            option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            self.parallel_model = DistributedDataParallel(self.model, device_ids=devices, **{option: False})

    def train(self) -> None:
        self.model.train()
        try:
            super().train()
        finally:
            self._batches = iter(())  # ends the loader's workers

    def start(self) -> None:
        self.parallelize()
        self._batches = iter(self.make_loader(self.iteration))

    def run_step(self) -> None:
        started = time.perf_counter()
        batch = next(self._batches)
        put_scalar("data_time", time.perf_counter() - started)

        seed_all_rng(step_seed(self.seed, comm.get_rank(), self.iteration))
        buffers = self._copies_of_buffers()
        with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
            losses = self.parallel_model(batch)
            total = sum(losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        self.grad_scaler.scale(total).backward()
        self.grad_scaler.unscale_(self.optimizer)
        parameters = [p for g in self.optimizer.param_groups for p in g["params"] if p.grad is not None]
        norm = self.clip(parameters)
        for name, value in {"total_loss": total, **losses, "grad_norm": norm}.items():
            put_scalar(name, value)
        most = self.max_skipped if self.grad_scaler.is_enabled() else 1
        finite = self.finite_check.judge(self.iteration + 1, total, norm, losses, most)
        self._restore_buffers(buffers, unless=finite)
        self.finite_check.step(self.grad_scaler)
        average_batch_norm_statistics(self._batch_norms)

    def _copies_of_buffers(self) -> list[torch.Tensor]:
        """Copy what a step that float16 skips may spoil: running statistics, the memory bank."""
        return [buffer.clone() for buffer in self.model.buffers()] if self.grad_scaler.is_enabled() else []

    @torch.no_grad()
    def _restore_buffers(self, copies: list[torch.Tensor], unless: torch.Tensor) -> None:
        for buffer, copy in zip(self.model.buffers() if copies else (), copies, strict=True):
            buffer.copy_(torch.where(unless, buffer, copy))

    def confirm_steps(self) -> None:
        """Wait for the device, and stop if training has diverged.

        Raises:
            UserError: with the iteration, the losses and the learning rate.
        """
        self.finite_check.look()


def step_seed(seed: int, rank: int, iteration: int) -> int:
    """A well-mixed 32-bit seed for one iteration of one rank."""
    return int(np.random.SeedSequence([seed, rank, iteration]).generate_state(1)[0])


@torch.no_grad()
def average_batch_norm_statistics(modules: list[nn.Module]) -> None:
    """Replace the running statistics of those `modules` that train by their means over the ranks."""
    if comm.get_world_size() == 1:
        return
    statistics = [s for norm in modules if norm.training for s in (norm.running_mean, norm.running_var)]
    if not statistics:
        return
    flat = comm.all_reduce_sum(torch.cat([value.float().flatten() for value in statistics]))
    flat /= comm.get_world_size()
    for value, mean in zip(statistics, flat.split([value.numel() for value in statistics]), strict=True):
        value.copy_(mean.view_as(value))
