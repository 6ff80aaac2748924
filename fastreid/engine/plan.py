"""A training's plan as its log tells it before the first step."""

import logging

from fastreid.data import describe
from fastreid.engine.train_loop import SimpleTrainer
from fastreid.utils.complexity import count_parameters

logger = logging.getLogger(__name__)


def log_plan(trainer: SimpleTrainer) -> None:
    """Log data, batches, epochs and what is trained of a `DefaultTrainer`."""
    solver, train_set = trainer.cfg.SOLVER, trainer.train_set
    logger.info("Training data:\n%s", describe(train_set.datasets, ["train"]))
    title = "Held-out identities, evaluated instead of tests" if train_set.held_out else "Test data"
    logger.info("%s:\n%s", title, describe(trainer.test_sets, ["query", "gallery"]))
    logger.info(
        "%s: %d images of %d identities, batches of %d, %d epochs of %d iterations",
        type(trainer.model).__name__,
        len(train_set.samples),
        train_set.num_classes,
        solver.IMS_PER_BATCH,
        trainer.max_epoch,
        trainer.iters_per_epoch,
    )
    (count,) = count_parameters(trainer.model)
    millions = count.trainable / 1e6, count.total / 1e6
    logger.info("%.2f of %.2f million parameters train by %s", *millions, solver.OPT)
    if solver.AMP.ENABLED and trainer.amp_dtype is None:
        logger.info("Mixed precision is for CUDA: computing in float32 here")
