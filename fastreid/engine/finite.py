"""Steps whose loss or gradients are not finite: never taken, and noticed without a wait at every step."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from fastreid.solver import skips_steps
from fastreid.utils.errors import UserError

LOOK_PERIOD = 10  # iterations between two moments at which the host waits for the device


class _Step(NamedTuple):
    iteration: int
    losses: dict[str, Tensor]
    norm: Tensor
    lr: float
    skipped: Tensor
    """How many steps in a row were skipped, up to this one."""
    most: int
    """At how many of them training stops."""


class FiniteCheck:
    """Keeps numbers that are not finite from the model, and stops a training that goes on making them.

    They are judged on the device. An optimiser that can skip a step there (torch's fused ones, told by their
    ``found_inf``) skips every step from the one on at which training is to stop, so that the model stays as
    it was before; with loss scaling it skips those that are not finite. So the host looks every
    ``LOOK_PERIOD`` iterations only, and whenever :meth:`look` is called: at the latest before anything is
    written. With another optimiser it looks at every step, before it is taken.

    Args:
        optimizer: of all that trains.
        device: where the losses are.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self.optimizer = optimizer
        self.device = device
        self._stops = torch.zeros((), dtype=torch.bool, device=device)
        self._steps: list[_Step] = []  # since the last look
        self.skipped = 0

    @property
    def skipped(self) -> int:
        """Count the steps skipped in a row, up to the last one, which is to wait for the device."""
        return int(self._skipped)

    @skipped.setter
    def skipped(self, count: int) -> None:
        self._skipped = torch.full((), count, dtype=torch.int64, device=self.device)

    def judge(
        self, iteration: int, total: Tensor, norm: Tensor, losses: dict[str, Tensor], most: int
    ) -> Tensor:
        """Judge a step before it is taken.

        Args:
            iteration: its number, from 1.
            total: the sum of `losses`.
            norm: of the gradients.
            losses: by name, for the message.
            most: how many steps in a row that are not finite stop the training.

        Returns:
            Whether they are finite, a bool scalar on the device.

        Raises:
            UserError: as :meth:`look`, if it is time to.
        """
        finite = torch.isfinite(total.detach() + norm)
        self._skipped = (self._skipped + 1) * ~finite
        self._stops = self._stops | (self._skipped >= most)
        lr = self.optimizer.param_groups[0]["lr"]
        losses = {name: loss.detach() for name, loss in losses.items()}
        self._steps.append(_Step(iteration, losses, norm, lr, self._skipped, most))
        if not skips_steps(self.optimizer) or iteration % LOOK_PERIOD == 0:
            self.look()
        return finite

    def step(self, scaler: GradScaler) -> None:
        """Take the step, if it is to be taken; `scaler` decides where it is enabled."""
        if skips_steps(self.optimizer) and not scaler.is_enabled():
            self.optimizer.found_inf = self._stops.float()
            self.optimizer.step()
            del self.optimizer.found_inf
        else:
            scaler.step(self.optimizer)
        scaler.update()

    def look(self) -> None:
        """Wait for the steps judged so far, and stop if one of them is to stop the training.

        Raises:
            UserError: with the iteration, the losses and the learning rate of the first such step.
        """
        if self._steps and self._stops:
            raise _divergence(next(step for step in self._steps if step.skipped >= step.most))
        self._steps.clear()


def _divergence(step: _Step) -> UserError:
    values = ", ".join(f"{name} {value.item():.4g}" for name, value in step.losses.items())
    after = f" after {int(step.skipped)} skipped steps in a row" if step.most > 1 else ""
    return UserError(
        f"training diverged at iteration {step.iteration}{after}: {values}, gradient norm"
        f" {float(step.norm):.4g}, learning rate {step.lr:.4g}. The checkpoints written so far are good",
        "lower SOLVER.BASE_LR or lengthen SOLVER.WARMUP_ITERS",
    )
