"""The moments at which checkpoints are written."""

import logging
from dataclasses import dataclass

from fastreid.engine.train_loop import HookBase

logger = logging.getLogger(__name__)

FINAL, LATEST, BEST = "model_final.pth", "model_latest.pth", "model_best.pth"


@dataclass(eq=False)
class PeriodicCheckpointer(HookBase):
    """Calls `trainer.save_checkpoint(name)`; registered before the evaluation, so that none can cost work.

    - ``model_NNNN.pth`` after every `period` epochs (NNNN: epochs done), kept;
    - ``model_final.pth`` after the last epoch;
    - ``model_latest.pth``, overwritten each time: before an evaluation that falls on none of these
      (`eval_period` epochs), and every `period_iters` iterations.

    Where ``model_final.pth`` of a finished training cannot be read, but another checkpoint of its end can, it
    is written again.

    Args:
        period, eval_period, period_iters: 0 = never.
    """

    period: int
    eval_period: int = 0
    period_iters: int = 0

    def before_train(self) -> None:
        trainer = self.trainer
        if trainer.epoch == trainer.max_epoch and trainer.resumed_from not in ("", FINAL):
            logger.warning("All %d epochs are trained, but %s is lost: written again", trainer.epoch, FINAL)
            trainer.save_checkpoint(FINAL)
        elif trainer.epoch >= trainer.max_epoch:
            logger.info("All %d epochs are done already", trainer.max_epoch)

    def after_step(self) -> None:
        if self.period_iters and self.trainer.iteration % self.period_iters == 0:
            self.trainer.save_checkpoint(LATEST)

    def after_epoch(self) -> None:
        epoch = self.trainer.epoch
        if epoch == self.trainer.max_epoch:
            self.trainer.save_checkpoint(FINAL)
        elif self.trainer.is_due(self.period):
            self.trainer.save_checkpoint(f"model_{epoch:04d}.pth")
        elif self.trainer.is_due(self.eval_period):
            self.trainer.save_checkpoint(LATEST)
