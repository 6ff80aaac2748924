"""The time that iterations take."""

import datetime
import logging
import time

from fastreid.engine.train_loop import HookBase
from fastreid.utils.events import put_scalar

logger = logging.getLogger(__name__)


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
