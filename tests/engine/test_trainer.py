"""The seams of the trainer, and what its checkpoints say of themselves."""

from types import SimpleNamespace

import pytest
import torch
from toy_training import DIM, NAMES, ToyLoader, ToyModel

from fastreid.config import CfgNode, get_cfg
from fastreid.config.files import flat_keys
from fastreid.engine import HookBase, SimpleTrainer
from fastreid.engine.memory import memory_advice
from fastreid.solver import LRSchedule
from fastreid.structures import DataNames, Sample
from fastreid.utils.checkpoint import load_checkpoint
from fastreid.utils.env import code_version
from fastreid.utils.errors import UserError
from fastreid.utils.events import JSONWriter


class OtherModel(ToyModel): ...


class OtherSchedule(LRSchedule): ...


class OtherHook(HookBase): ...


def other_model(cls, cfg, names):
    return OtherModel(cfg.MODEL.HEADS.NUM_CLASSES, cfg)


def other_train_set(cls, cfg):
    return SimpleNamespace(names=NAMES, num_classes=5, num_views=2, samples=[], datasets=[], held_out=[])


OVERRIDES = {
    "build_train_set": ("train set", classmethod(other_train_set)),
    "build_test_sets": ("test sets", classmethod(lambda cls, cfg: ["a protocol"])),
    "build_train_loader": ("epoch", lambda self, start_iter=0: ToyLoader(start_iter, length=9)),
    "build_model": ("model", classmethod(other_model)),
    "build_optimizer": (
        "optimizer",
        classmethod(lambda cls, cfg, model: torch.optim.RMSprop(model.parameters(), 0.01)),
    ),
    "build_lr_scheduler": (
        "scheduler",
        classmethod(lambda cls, cfg, optimizer, length: OtherSchedule(optimizer, lambda t, base: base)),
    ),
    "build_hooks": ("hooks", lambda self: [OtherHook()]),
}


def parts(trainer) -> dict:
    """What the seams gave."""
    return {
        "train set": len(trainer.train_set.samples),
        "test sets": trainer.test_sets,
        "epoch": trainer.iters_per_epoch,
        "model": type(trainer.model),
        "optimizer": type(trainer.optimizer),
        "scheduler": type(trainer.scheduler),
        "hooks": [type(hook) for hook in trainer.hooks],
    }


@pytest.mark.parametrize("seam", OVERRIDES)
def test_overriding_a_seam_changes_that_part_alone(toy_trainer, toy_cfg, seam):
    part, override = OVERRIDES[seam]
    before = parts(toy_trainer(toy_cfg))
    after = parts(type("Other", (toy_trainer,), {seam: override})(toy_cfg))
    assert {name for name in before if before[name] != after[name]} == {part}


def test_too_few_distractors_are_found_before_training(toy_trainer, toy_cfg):
    query, gallery = [Sample("a", 0, 0, 0)], [Sample("b", 0, 1, 0), Sample("c", 1, 1, 0)]
    task = SimpleNamespace(name="TOY", query=query, gallery=gallery)
    toy_cfg.TEST.EQUAL_TERMS.DISTRACTORS = 2
    with pytest.raises(UserError, match="protocol TOY: a query has 1 gallery images of other persons"):
        type("Other", (toy_trainer,), {"build_test_sets": classmethod(lambda cls, cfg: [task])})(toy_cfg)


def test_evaluations_and_writers_are_seams_too(toy_trainer, toy_cfg, tmp_path):
    asked = []

    class Other(toy_trainer):
        def build_writers(self):
            return [JSONWriter(tmp_path / "own.json")]

        @classmethod
        def test(cls, cfg, model, test_sets):
            asked.append((cfg, model, test_sets))
            return {"P": {"mean": 3.0}}

    trainer = Other(toy_cfg)
    assert trainer.train() == {"P": {"mean": 3.0}}
    assert asked == [(trainer.cfg, trainer.model, trainer.test_sets)] * 3
    assert not (tmp_path / "run/metrics.json").exists()
    assert len((tmp_path / "own.json").read_text().splitlines()) >= 12


@pytest.mark.parametrize("place", [(ToyModel, "forward"), (SimpleTrainer, "parallelize")], ids=str)
@pytest.mark.parametrize(
    "failure", [torch.cuda.OutOfMemoryError("x"), RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")]
)
def test_a_step_that_does_not_fit_into_the_gpu_is_one_line_with_what_to_do(
    toy_trainer, toy_cfg, monkeypatch, failure, place
):
    def fails(*_):
        raise failure

    trainer = toy_trainer(toy_cfg)
    monkeypatch.setattr(*place, fails)
    with pytest.raises(UserError) as error:
        trainer.train()
    assert str(error.value) == (
        "CUDA out of memory: a training step of 8 images (SOLVER.IMS_PER_BATCH 8, 1 process(es)) takes more"
        " than the GPU has left; lower SOLVER.IMS_PER_BATCH to 4, or use more GPUs (tools/check_setup.py"
        " estimates what a step takes)"
    )


def test_what_saves_memory_is_what_the_configuration_does_not_have_yet(toy_cfg):
    toy_cfg.use_method("SDReIDStage2")
    toy_cfg.SOLVER.IMS_PER_BATCH, toy_cfg.DATALOADER.NUM_INSTANCE = 36, 4
    lower, more = "lower SOLVER.IMS_PER_BATCH to 16", "use more GPUs"
    other = "MODEL.SDMODEL.GRADIENT_CHECKPOINTING"
    assert memory_advice(toy_cfg, processes=1) == f"{lower}, or {more}, or set {other} True"
    toy_cfg.SOLVER.AMP.ENABLED, toy_cfg.MODEL.SDMODEL.GRADIENT_CHECKPOINTING = False, True
    assert memory_advice(toy_cfg, processes=4) == f"{lower}, or {more}, or set SOLVER.AMP.ENABLED True"
    toy_cfg.SOLVER.IMS_PER_BATCH = 4  # one identity: less is no batch
    assert memory_advice(toy_cfg, processes=1) == f"{more}, or set SOLVER.AMP.ENABLED True"


def test_what_the_data_decides_is_filled_in_and_what_was_given_stays_as_it_is(toy_trainer, toy_cfg):
    trainer = toy_trainer(toy_cfg)
    assert (trainer.cfg.MODEL.HEADS.NUM_CLASSES, trainer.cfg.MODEL.SDMODEL.VIEW_NUM) == (5, 2)
    assert (toy_cfg.MODEL.HEADS.NUM_CLASSES, toy_cfg.MODEL.SDMODEL.VIEW_NUM) == (0, 0)
    assert trainer.cfg.is_frozen()


def test_a_checkpoint_describes_itself(toy_trainer, toy_cfg, tmp_path):
    trainer = toy_trainer(toy_cfg)
    trainer.train()
    meta = load_checkpoint(tmp_path / "run/model_best.pth")["meta"]
    assert set(meta) == {"method", "num_classes", "names", "feature_parts", "config", "version", "rules"}
    assert (meta["method"], meta["num_classes"], meta["version"]) == ("ToyModel", 5, code_version())
    assert DataNames.from_dict(meta["names"]) == NAMES
    assert meta["feature_parts"] == {"person": DIM}
    stored = CfgNode.load_cfg(meta["config"])
    assert flat_keys(stored) == flat_keys(trainer.cfg)
    again = get_cfg()
    again.merge_stored(dict(stored), "model_best.pth")
    assert flat_keys(again) == flat_keys(trainer.cfg)
