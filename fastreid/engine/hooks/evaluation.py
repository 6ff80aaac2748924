"""Evaluation during training."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastreid.engine.hooks.checkpointing import BEST
from fastreid.engine.train_loop import HookBase
from fastreid.structures import Results
from fastreid.utils import comm
from fastreid.utils.checkpoint import load_checkpoint
from fastreid.utils.documents import load_json
from fastreid.utils.env import preserved_rng_state
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import set_aside, write_json

logger = logging.getLogger(__name__)


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """Read ``evaluations.json``: of each evaluation its epoch, iteration, mean and results by protocol.

    Raises:
        UserError: if it is something else.
    """
    kinds = {"epoch": int, "mean": int | float, "results": dict}
    try:
        found = load_json(path)
        if all(isinstance(entry[key], kind) for entry in found for key, kind in kinds.items()):
            return list(found)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        pass
    raise UserError(f"{path} holds no evaluations")


class EvalHook(HookBase):
    """Evaluates every `period` epochs and after the last; keeps the best model as ``model_best.pth``.

    The best is by the mean over the protocols of their `mean` (of Rank-1 and mAP). Every evaluation is
    added to ``evaluations.json``: a resumed run knows from it what the best was, and makes up for an
    evaluation that the interruption cut off. Where the file cannot be read it goes by what the checkpoint
    knows, and where the best model cannot it chooses anew.

    Args:
        evaluate: returns ``{protocol: {metric: percent}}``, the same on all ranks.
        period: epochs; 0 = only after the last.
        output_dir: of evaluations.json.
    """

    def __init__(self, evaluate: Callable[[], Results], period: int, output_dir: str) -> None:
        self.evaluate = evaluate
        self.period = period
        self.path = Path(output_dir) / "evaluations.json"
        self.history: list[dict[str, Any]] = []

    def before_train(self) -> None:
        trainer = self.trainer
        if trainer.iteration == 0:
            return
        earlier = comm.broadcast_object(self._earlier() if comm.is_main_process() else None)
        self.history = [entry for entry in earlier if entry["epoch"] <= trainer.epoch]
        known = [entry["mean"] for entry in self.history]
        if trainer.best_metric is not None:
            known.append(trainer.best_metric)
        lost = comm.broadcast_object(bool(known) and comm.is_main_process() and self._has_lost_best())
        trainer.best_metric = None if lost else max(known, default=None)
        cut_off = trainer.iteration == trainer.epoch * trainer.iters_per_epoch and trainer.is_due(self.period)
        if cut_off and (lost or all(entry["epoch"] != trainer.epoch for entry in self.history)):
            self.history = [entry for entry in self.history if entry["epoch"] != trainer.epoch]
            logger.info("Making up for the evaluation of epoch %d", trainer.epoch)
            self._evaluate()

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = state.get("history", [])

    def _earlier(self) -> list[dict[str, Any]]:
        """Return the evaluations of the file; of the checkpoint where it cannot be read or is not there."""
        if not self.path.exists():
            return self.history
        try:
            return read_evaluations(self.path)
        except UserError as error:
            copy = set_aside(self.path)
            logger.warning("%s. Going on with those of the checkpoint; as it was, it is %s", error, copy)
            return self.history

    def _has_lost_best(self) -> bool:
        try:
            load_checkpoint(self.path.with_name(BEST))
        except UserError as error:
            logger.warning("%s. The best model is chosen anew from here on", error.problem)
            return True
        return False

    def after_epoch(self) -> None:
        if self.trainer.is_due(self.period):
            self._evaluate()

    def _evaluate(self) -> None:
        trainer = self.trainer
        with preserved_rng_state(), trainer.stopping_at_once():
            results = trainer.last_results = self.evaluate()
        trainer.model.train()
        trainer.write_scalars(
            {
                f"{protocol}/{name}": value
                for protocol, metrics in results.items()
                for name, value in metrics.items()
            }
        )
        mean = sum(metrics["mean"] for metrics in results.values()) / len(results)
        is_best = trainer.best_metric is None or mean > trainer.best_metric
        if is_best:
            trainer.best_metric = mean
            trainer.save_checkpoint(BEST, mark_last=False)
        logger.info("Epoch %d: mean of protocols %.2f (best %.2f)", trainer.epoch, mean, trainer.best_metric)
        # After model_best.pth: an interruption between the two repeats the evaluation, and loses nothing.
        entry = {"epoch": trainer.epoch, "iteration": trainer.iteration, "mean": mean, "results": results}
        self.history.append(entry)
        if comm.is_main_process():
            write_json(self.path, self.history)
