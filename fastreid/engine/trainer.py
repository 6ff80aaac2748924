"""The trainer that a configuration describes."""

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from fastreid.config import CfgNode
from fastreid.data import (
    Sample,
    build_test_datasets,
    build_test_loader,
    build_train_dataset,
    build_train_loader,
    describe,
)
from fastreid.engine import hooks
from fastreid.engine.defaults import (
    locked_output_dir,
    open_output_dir,
    set_earlier_run_aside,
    storage_errors_named,
)
from fastreid.modeling.meta_arch.sdreid.feature_cache import cached_features, remove_cached_features
from fastreid.engine.resume import check_resumed_config
from fastreid.engine.train_loop import HookBase, SimpleTrainer
from fastreid.engine.trained_model import with_num_classes
from fastreid.evaluation import evaluate_protocols
from fastreid.modeling import build_model
from fastreid.modeling.assets import required_weights
from fastreid.solver import build_gradient_clipper, build_lr_scheduler, build_optimizer
from fastreid.utils import comm
from fastreid.utils.amp import AMP_DTYPES
from fastreid.utils.checkpoint import Checkpointer, check_stage, load_checkpoint, load_model_weights
from fastreid.utils.env import code_version, rng_state, set_rng_state
from fastreid.utils.errors import UserError
from fastreid.utils.events import ConsoleWriter, JSONWriter, TensorBoardWriter, Writer

logger = logging.getLogger(__name__)

KEPT = "The checkpoints written so far are good: make room or fix the disk, then go on with --resume"


class DefaultTrainer(SimpleTrainer):
    """Data, model, optimiser, schedule and hooks as `cfg` says.

    The constructor reads the datasets and builds the model, :meth:`resume_or_load` reads checkpoints,
    :meth:`train` trains. Nothing is written before `train`, so whatever is wrong with the input costs
    neither time nor an earlier run's files.

    Args:
        cfg: checked, see `setup_config`; HEADS.NUM_CLASSES 0 becomes the number of training identities.

    Raises:
        UserError: for data or settings that cannot be used.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.train_set = build_train_dataset(cfg)
        self.test_sets = self.train_set.held_out or build_test_datasets(cfg)
        self.cfg = cfg = with_num_classes(cfg, self.train_set.num_classes)
        loader = build_train_loader(cfg, self.train_set)
        model = build_model(cfg)
        super().__init__(
            model,
            build_optimizer(cfg, model),
            partial(build_train_loader, cfg, self.train_set),
            cfg.SOLVER.MAX_EPOCH,
            cfg.SOLVER.ITERS_PER_EPOCH or len(loader),
            amp_dtype=AMP_DTYPES[cfg.SOLVER.AMP.DTYPE] if cfg.SOLVER.AMP.ENABLED else None,
            max_skipped=cfg.SOLVER.AMP.MAX_SKIPPED,
            clip=build_gradient_clipper(cfg),
            seed=cfg.MODEL.SEED,
        )
        self.scheduler = build_lr_scheduler(cfg, self.optimizer, self.iters_per_epoch)
        self.checkpointer = Checkpointer(cfg.OUTPUT_DIR)
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase]:
        """The hooks in their order: what changes the training state, then what saves it, then the rest."""
        cfg, solver, period = self.cfg, self.cfg.SOLVER, self.cfg.TEST.EVAL_PERIOD
        chosen: list[HookBase] = [hooks.IterationTimer()]
        if cfg.MODEL.FREEZE_LAYERS and solver.FREEZE_ITERS:
            chosen.append(hooks.LayerFreeze(self.model, cfg.MODEL.FREEZE_LAYERS, solver.FREEZE_ITERS))
        chosen.append(hooks.LRScheduler(self.scheduler))
        chosen.append(hooks.PeriodicWriter(self.build_writers, solver.LOG_PERIOD))
        if cfg.TEST.PRECISE_BN.ENABLED:
            chosen.append(hooks.PreciseBN(self.model, self.make_loader, cfg.TEST.PRECISE_BN.NUM_ITER, period))
        if cfg.DATALOADER.ON_BAD_IMAGE == "skip":
            chosen.append(hooks.BadImageReport(self.train_set.replaced))
        return [
            *chosen,
            hooks.PeriodicCheckpointer(solver.CHECKPOINT_PERIOD, period, solver.CHECKPOINT_ITERS),
            hooks.StopOnSignal(),
            hooks.EvalHook(self._evaluate, period, cfg.OUTPUT_DIR),
        ]

    def build_writers(self) -> list[Writer]:
        folder = Path(self.cfg.OUTPUT_DIR)
        return [
            ConsoleWriter(self.max_iteration, self.iters_per_epoch),
            JSONWriter(folder / "metrics.json", self.iteration),
            TensorBoardWriter(folder, self.iteration),
        ]

    def build_statistics_loader(self, samples: list[Sample]) -> Iterable[dict]:
        """Batches of training images, without augmentation, for what a model computes before it trains."""
        return build_test_loader(self.cfg, samples, may_skip=True)

    def resume_or_load(self, resume: bool = False) -> None:
        """With `resume` and a checkpoint in OUTPUT_DIR go on from it, else load pretrained parts and
        MODEL.WEIGHTS.

        Raises:
            UserError: for a file that cannot be read or does not fit.
        """
        if resume and self._resume():
            return
        self.model.load_pretrained()
        if weights := required_weights(self.cfg, training=True):
            checkpoint = load_checkpoint(weights)
            check_stage(checkpoint["meta"], self.model, "train", weights)
            partial_ok = self.cfg.MODEL.ALLOW_PARTIAL_WEIGHTS
            load_model_weights(self.model, checkpoint["model"], "train", partial_ok, weights)

    def train(self) -> dict[str, dict[str, float]] | None:
        """Train to the end; returns the results of the last evaluation (None when there was none)."""
        self._log_plan()
        if self.iteration == 0:
            self.model.on_train_start(self.train_set, self.build_statistics_loader)
            self._copy_from_first_rank()
        if self.epoch >= self.max_epoch:
            logger.info("All %d epochs are done already", self.max_epoch)
        with locked_output_dir(self.cfg), storage_errors_named(self.cfg.OUTPUT_DIR, KEPT):
            open_output_dir(self.cfg)
            if comm.is_main_process():
                self.checkpointer.remove_partial_files()
                remove_cached_features(self.cfg)
                if self.iteration == 0:
                    set_earlier_run_aside(self.cfg.OUTPUT_DIR)
            comm.synchronize()
            with self._batches_source() as self.make_loader:
                super().train()
        return self.last_results

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs; call it on all ranks."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "skipped": self.skipped,
            "epoch": self.epoch,
            "iteration": self.iteration,
            "iters_per_epoch": self.iters_per_epoch,
            "best_metric": self.best_metric,
            "rng": comm.all_gather_object(rng_state()),
            "events": self.storage.state_dict(),
            "hooks": {type(hook).__name__: hook.state_dict() for hook in self.hooks},
            "meta": {
                "stage": self.model.stage,
                "num_classes": self.cfg.MODEL.HEADS.NUM_CLASSES,
                "config": self.cfg.dump(),
                "version": code_version(),
            },
        }

    def load_state_dict(self, checkpoint: dict[str, Any], source: str) -> None:
        """Restore what :meth:`state_dict` gave; `source` is the file, for messages.

        Raises:
            UserError: if the file is no checkpoint of this run.
        """
        check_stage(checkpoint["meta"], self.model, "resume", source)
        absent = [
            key for key in ("optimizer", "scheduler", "iteration", "iters_per_epoch") if key not in checkpoint
        ]
        if absent:
            raise UserError(
                f"{source} lacks {', '.join(absent)}: not a checkpoint to resume",
f"name it in MODEL.WEIGHTS"
            )
        check_resumed_config(self.cfg, checkpoint["meta"]["config"], source)
        if checkpoint["iters_per_epoch"] != self.iters_per_epoch:
            raise UserError(
                f"{source} has {checkpoint['iters_per_epoch']} iterations an epoch, now there are"
                f" {self.iters_per_epoch}: the training data has changed",
f"restore it or start a new run"
            )
        load_model_weights(self.model, checkpoint["model"], "resume", source=source)
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scheduler.load_state_dict(checkpoint["scheduler"])
        if checkpoint["grad_scaler"]:  # empty without loss scaling, which the resumed run may switch on
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler"])
        for name in ("skipped", "epoch", "iteration", "best_metric"):
            setattr(self, name, checkpoint[name])
        self.storage.load_state_dict(checkpoint["events"])
        for hook in self.hooks:
            hook.load_state_dict(checkpoint["hooks"].get(type(hook).__name__, {}))
        if len(checkpoint["rng"]) == comm.get_world_size():
            set_rng_state(checkpoint["rng"][comm.get_rank()])

    def save_checkpoint(self, name: str, mark_last: bool = True) -> None:
        state = self.state_dict()
        if comm.is_main_process():
            self.checkpointer.save(name, state, mark_last)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module) -> dict[str, dict[str, float]]:
        """Evaluate `model` on the protocols of DATASETS.TESTS: ``{protocol: {metric: percent}}``."""
        return evaluate_protocols(cfg, model, build_test_datasets(cfg))

    def _evaluate(self) -> dict[str, dict[str, float]]:
        return evaluate_protocols(self.cfg, self.model, self.test_sets)

    def _batches_source(self) -> AbstractContextManager[Callable[[int], Iterable[dict]]]:
        """What makes the training batches: of images, or with CACHE_FEATURES of what they are encoded to."""
        if self.cfg.MODEL.SDMODEL.CACHE_FEATURES and self.epoch < self.max_epoch:
            return cached_features(self.cfg, self.model, self.train_set)
        return nullcontext(self.make_loader)

    def _resume(self) -> bool:
        found = self.checkpointer.load_last() if comm.is_main_process() else None
        path = comm.broadcast_object(found[0] if found else None)
        if path is None:
            logger.warning(
                "--resume: no checkpoint in %s yet, starting from the beginning", self.cfg.OUTPUT_DIR
            )
            return False
        self.load_state_dict(found[1] if found else load_checkpoint(path), str(path))
        logger.info("Resumed from %s: %d epochs, %d iterations done", path, self.epoch, self.iteration)
        return True

    def _copy_from_first_rank(self) -> None:
        """Make sure that all ranks begin with the same numbers."""
        if comm.get_world_size() > 1:
            with torch.no_grad():
                for value in (*self.model.parameters(), *self.model.buffers()):
                    dist.broadcast(value, src=0)

    def _log_plan(self) -> None:
        cfg = self.cfg
        logger.info("Training data:\n%s", describe(self.train_set.datasets, ["train"]))
        title = "Held-out identities, evaluated instead of tests" if self.train_set.held_out else "Test data"
        logger.info("%s:\n%s", title, describe(self.test_sets, ["query", "gallery"]))
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        every = sum(p.numel() for p in self.model.parameters())
        logger.info(
            "Stage %d: %d images of %d identities, batches of %d, %d epochs of %d iterations",
            self.model.stage,
            len(self.train_set.samples),
            self.train_set.num_classes,
            cfg.SOLVER.IMS_PER_BATCH,
            self.max_epoch,
            self.iters_per_epoch,
        )
        logger.info(
            "%.2f of %.2f million parameters train, by %s", trained / 1e6, every / 1e6, cfg.SOLVER.OPT
        )
        if cfg.SOLVER.AMP.ENABLED and self.amp_dtype is None:
            logger.info("Mixed precision is for CUDA: computing in float32 here")
