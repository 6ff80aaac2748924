"""The trainer that a configuration describes."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import yaml
from torch.optim import Optimizer

from fastreid.config import CfgNode
from fastreid.data import (
    TrainSet,
    build_test_datasets,
    build_test_loader,
    build_train_dataset,
    build_train_loader,
    fit_batch_size,
)
from fastreid.engine import hooks
from fastreid.engine.memory import training_shortage_named
from fastreid.engine.plan import log_plan
from fastreid.engine.resume import TRAINING_RULES, check_resumed, check_resumed_start, restored
from fastreid.engine.run_folder import (
    begin_run,
    is_restarted,
    locked_output_dir,
    open_output_dir,
    storage_errors_named,
)
from fastreid.engine.train_loop import HookBase, SimpleTrainer
from fastreid.evaluation import evaluate_protocols
from fastreid.evaluation.evaluator import check_distractors
from fastreid.evaluation.extraction import SMALLER_BATCHES
from fastreid.modeling import MetaArch, build_model, fit_config
from fastreid.modeling.assets import required_weights
from fastreid.modeling.weights import check_method, load_model_weights
from fastreid.solver import (
    LRSchedule,
    build_gradient_clipper,
    build_lr_scheduler,
    build_optimizer,
    load_optimizer_state,
)
from fastreid.structures import Batch, DataNames, Results, RetrievalTask, Sample
from fastreid.utils import comm
from fastreid.utils.checkpoint import Checkpointer, load_checkpoint
from fastreid.utils.env import AMP_DTYPES, code_version, rng_state, set_rng_state
from fastreid.utils.events import ConsoleWriter, JSONWriter, TensorBoardWriter, Writer
from fastreid.utils.memory import memory_shortage_named
from fastreid.utils.wandb_writer import WandbWriter, check_wandb

logger = logging.getLogger(__name__)

KEPT = "The checkpoints written so far are good", "go on with --resume"


class DefaultTrainer(SimpleTrainer):
    """Data, model, optimiser, schedule and hooks as `cfg` says.

    The constructor reads the datasets and builds the model, :meth:`resume_or_load` reads checkpoints,
    :meth:`train` trains. Nothing is written before `train`, so whatever is wrong with the input costs
    neither time nor an earlier run's files.

    A subclass overrides one of the ``build_…`` methods, or :meth:`test`, to change one part.

    Args:
        cfg: checked, see `setup_config`; what the training data decides is filled in.

    Attributes:
        train_set: the training images.
        test_sets: what evaluations during training score.

    Raises:
        UserError: for data or settings that cannot be used.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg
        self.train_set = self.build_train_set(cfg)
        self.test_sets = self.train_set.held_out or self.build_test_sets(cfg)
        check_distractors(cfg, self.test_sets)  # the first evaluation may be hours away
        check_wandb(cfg.WANDB_PROJECT)
        names = self.train_set.names
        cfg = fit_batch_size(cfg, self.train_set, comm.get_world_size())
        self.cfg = cfg = fit_config(cfg, len(names.identities), names.views)
        iters_per_epoch = cfg.SOLVER.ITERS_PER_EPOCH or len(self.build_train_loader())
        model = self.build_model(cfg, names)
        super().__init__(
            model,
            self.build_optimizer(cfg, model),
            self.build_train_loader,
            cfg.SOLVER.MAX_EPOCH,
            iters_per_epoch,
            amp_dtype=AMP_DTYPES[cfg.SOLVER.AMP.DTYPE] if cfg.SOLVER.AMP.ENABLED else None,
            clip=build_gradient_clipper(cfg),
            seed=cfg.MODEL.SEED,
        )
        self.scheduler = self.build_lr_scheduler(cfg, self.optimizer, iters_per_epoch)
        self.checkpointer = Checkpointer(cfg.OUTPUT_DIR)
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_train_set(cls, cfg: CfgNode) -> TrainSet:
        """Read the training images of DATASETS.NAMES."""
        return build_train_dataset(cfg)

    @classmethod
    def build_test_sets(cls, cfg: CfgNode) -> list[RetrievalTask]:
        """Read the protocols of DATASETS.TESTS."""
        return build_test_datasets(cfg)

    def build_train_loader(self, start_iter: int = 0) -> Iterable[Batch]:
        """Give endless batches of this rank from iteration `start_iter` on; the length is an epoch's."""
        return build_train_loader(self.cfg, self.train_set, start_iter)

    @classmethod
    def build_model(cls, cfg: CfgNode, names: DataNames) -> MetaArch:
        """Build the method's model from random weights."""
        return build_model(cfg, names)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: MetaArch) -> Optimizer:
        """Make the optimiser of SOLVER.OPT, by the rules that the model has for its parameters."""
        rules = model.parameter_rules()
        return build_optimizer(cfg, model, rules.undecayed, rules.heads)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: Optimizer, iters_per_epoch: int) -> LRSchedule:
        """Make the schedule of SOLVER.SCHED."""
        return build_lr_scheduler(cfg, optimizer, iters_per_epoch)

    def build_hooks(self) -> list[HookBase]:
        """Make the hooks in order: first what changes the training state, what saves it, then the rest."""
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
            hooks.EvalHook(lambda: self.test(cfg, self.model, self.test_sets), period, cfg.OUTPUT_DIR),
        ]

    def build_writers(self) -> list[Writer]:
        """Make what shows and stores scalars, when training starts."""
        folder, project = Path(self.cfg.OUTPUT_DIR), self.cfg.WANDB_PROJECT
        writers = [
            ConsoleWriter(self.max_iteration, self.iters_per_epoch),
            JSONWriter(folder / "metrics.json", self.iteration),
            TensorBoardWriter(folder, self.iteration),
        ]
        if project:
            writers.append(WandbWriter(folder, project, yaml.safe_load(self.cfg.dump()), self.iteration))
        return writers

    def build_statistics_loader(self, samples: list[Sample]) -> Iterable[Batch]:
        """Give batches of training images, without augmentation, for `MetaArch.on_train_start`."""
        return build_test_loader(self.cfg, samples, may_skip=True)

    def resume_or_load(self, resume: bool = False) -> None:
        """With `resume` or after a restart go on from the checkpoint in OUTPUT_DIR; without one load
        pretrained parts and MODEL.WEIGHTS.

        Raises:
            UserError: for a file that cannot be read or does not fit.
        """
        wanted = any(comm.all_gather_object(resume)) or is_restarted(self.cfg.OUTPUT_DIR)
        if wanted and self._resume():
            return
        self.model.load_pretrained()
        if weights := required_weights(type(self.model), self.cfg, training=True):
            checkpoint = load_checkpoint(weights)
            check_method(checkpoint["meta"], self.model, "train", weights)
            partial_ok = self.cfg.MODEL.ALLOW_PARTIAL_WEIGHTS
            load_model_weights(self.model, checkpoint["model"], "train", partial_ok, weights)

    def train(self) -> Results | None:
        """Train to the end; returns the results of the last evaluation (None when there was none)."""
        log_plan(self)
        if self.iteration == 0:
            with memory_shortage_named("taking statistics of the training images", SMALLER_BATCHES):
                self.model.on_train_start(self.train_set, self.build_statistics_loader)
            comm.broadcast_tensors([*self.model.parameters(), *self.model.buffers()])
        with locked_output_dir(self.cfg), storage_errors_named(self.cfg.OUTPUT_DIR, *KEPT):
            open_output_dir(self.cfg)
            begin_run(self.cfg.OUTPUT_DIR, afresh=self.iteration == 0)
            if comm.is_main_process():
                self.checkpointer.remove_partial_files()
            comm.synchronize()
            with self._training_batches() as self.make_loader:
                super().train()
        return self.last_results

    def parallelize(self) -> None:
        with training_shortage_named(self.cfg):  # DDP copies the gradients
            super().parallelize()

    def run_step(self) -> None:
        with training_shortage_named(self.cfg):
            super().run_step()

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs; call it on all ranks. UserError after a divergence."""
        self.confirm_steps()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "skipped": self.finite_check.skipped,
            "epoch": self.epoch,
            "iteration": self.iteration,
            "iters_per_epoch": self.iters_per_epoch,
            "best_metric": self.best_metric,
            "rng": comm.all_gather_object(rng_state()),
            "events": self.storage.state_dict(),
            "hooks": {type(hook).__name__: hook.state_dict() for hook in self.hooks},
            "meta": {
                "method": type(self.model).__name__,
                "num_classes": self.cfg.MODEL.HEADS.NUM_CLASSES,
                "names": self.model.names.to_dict(),
                "feature_parts": self.model.feature_parts(),
                "config": self.cfg.dump(),
                "version": code_version(),
                "rules": TRAINING_RULES,
            },
        }

    def load_state_dict(self, checkpoint: dict[str, Any], source: str) -> None:
        """Restore what :meth:`state_dict` gave; `source` is the file, for messages.

        Raises:
            UserError: if the file is no checkpoint of this run.
        """
        check_resumed(self.cfg, self.model, self.iters_per_epoch, checkpoint, source)
        check_resumed_start(self.cfg, self.model, checkpoint["model"], source)
        load_model_weights(self.model, checkpoint["model"], "resume", source=source)
        with restored(source):
            load_optimizer_state(self.optimizer, checkpoint["optimizer"])
            self.scheduler.load_state_dict(checkpoint["scheduler"])
            if checkpoint["grad_scaler"]:  # empty without loss scaling, which the resumed run may switch on
                self.grad_scaler.load_state_dict(checkpoint["grad_scaler"])
            self.finite_check.skipped = checkpoint["skipped"]
            for name in ("epoch", "iteration", "best_metric"):
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
    def test(cls, cfg: CfgNode, model: MetaArch, test_sets: Sequence[RetrievalTask] | None = None) -> Results:
        """Evaluate `model` on `test_sets`, or else on DATASETS.TESTS; the same result on all ranks."""
        test_sets = cls.build_test_sets(cfg) if test_sets is None else test_sets
        for task in test_sets:
            model.check_views(task.view_names, task.name)
        return evaluate_protocols(cfg, model, test_sets)

    def _training_batches(self) -> AbstractContextManager[Callable[[int], Iterable[Batch]]]:
        if self.epoch >= self.max_epoch:
            return nullcontext(self.build_train_loader)
        return self.model.training_batches(self.cfg, self.train_set, self.build_train_loader)

    def _resume(self) -> bool:
        found = self.checkpointer.load_last() if comm.is_main_process() else None
        path = comm.broadcast_object(found[0] if found else None)
        if path is None:
            logger.warning("--resume: no checkpoint in %s yet, starting afresh", self.cfg.OUTPUT_DIR)
            return False
        self.load_state_dict(found[1] if found else load_checkpoint(path, whole=True), str(path))
        self.resumed_from = path.name
        logger.info("Resumed from %s: %d epochs, %d iterations done", path, self.epoch, self.iteration)
        return True
