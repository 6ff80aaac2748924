"""The learning rate schedule."""

from fastreid.engine.train_loop import HookBase
from fastreid.solver import LRSchedule
from fastreid.utils.events import put_scalar


class LRScheduler(HookBase):
    """Steps `schedule` after each iteration; records `lr`, the rate that the iteration used.

    With several parameter groups it is the rate of the group with the most parameters.
    """

    def __init__(self, schedule: LRSchedule) -> None:
        self.schedule = schedule
        sizes = [sum(p.numel() for p in group["params"]) for group in schedule.optimizer.param_groups]
        self._shown = sizes.index(max(sizes))

    def after_step(self) -> None:
        put_scalar("lr", self.schedule.get_last_lr()[self._shown])
        self.schedule.step()
