"""Recording learning rate and time of every step, and writing all scalars."""

import datetime
import logging
import time
from collections.abc import Callable

from fastreid.engine.train_loop import HookBase
from fastreid.solver import LRSchedule
from fastreid.utils import comm
from fastreid.utils.events import Writer, put_scalar

logger = logging.getLogger(__name__)


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


class IterationTimer(HookBase):
    """Records `time`, the seconds of an iteration with its data loading, and says the total at the end."""

    def before_train(self) -> None:
        self._train_start = time.perf_counter()
        self._first_iteration = self.trainer.iteration

    def before_step(self) -> None:
        self._step_start = time.perf_counter()

    def after_step(self) -> None:
        put_scalar("time", time.perf_counter() - self._step_start)

    def after_train(self) -> None:
        done = self.trainer.iteration - self._first_iteration
        seconds = time.perf_counter() - self._train_start
        if done:
            total = datetime.timedelta(seconds=int(seconds))
            logger.info("%d iterations in %s, evaluation included (%.3f s each)", done, total, seconds / done)


class PeriodicWriter(HookBase):
    """Gives the scalars to the writers every `period` iterations and after the last, on the main process.

    Args:
        make_writers: called when training starts, so that nothing is written before.
    """

    def __init__(self, make_writers: Callable[[], list[Writer]], period: int) -> None:
        self.make_writers = make_writers
        self.period = period

    def before_train(self) -> None:
        self.trainer.writers = self.make_writers() if comm.is_main_process() else []

    def after_step(self) -> None:
        trainer = self.trainer
        if trainer.iteration % self.period == 0 or trainer.iteration == trainer.max_iteration:
            trainer.storage.average_over_ranks()
            trainer.write_scalars(trainer.storage.take_updates())

    def after_train(self) -> None:
        for writer in self.trainer.writers:
            writer.close()
        self.trainer.writers = []
