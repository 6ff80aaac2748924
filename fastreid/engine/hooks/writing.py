"""Showing and storing the recorded scalars."""

from collections.abc import Callable

from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from fastreid.utils.events import Writer


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
            trainer.write_scalars(trainer.storage.take_updates())

    def after_train(self) -> None:
        for writer in self.trainer.writers:
            writer.close()
        self.trainer.writers = []
