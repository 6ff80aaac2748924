"""Fixtures: a configuration and a DefaultTrainer on the toy model and data."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toy_training import IDENTITIES, ToyLoader, ToyModel

from fastreid.config import get_cfg
from fastreid.data import Sample
from fastreid.engine import trainer as trainer_module
from fastreid.utils.logger import setup_logger


@pytest.fixture
def toy_cfg(tmp_path: Path):
    cfg = get_cfg()
    solver = {"MAX_EPOCH": 3, "OPT": "Adam", "BASE_LR": 0.01, "WARMUP_ITERS": 3, "LOG_PERIOD": 1}
    values = {
        "MODEL": {"DEVICE": "cpu", "BACKBONE": {"PRETRAIN": False}},
        "SOLVER": solver | {"CHECKPOINT_PERIOD": 1, "IMS_PER_BATCH": 8},
        "TEST": {"EVAL_PERIOD": 1},
        "OUTPUT_DIR": str(tmp_path / "run"),
    }
    cfg.merge_values(values, source="test")
    return cfg


@pytest.fixture(autouse=True)
def closed_log():
    """Logging is set up as in the program, and no log file of one test stays open in the next."""
    setup_logger()
    yield
    setup_logger()


@pytest.fixture
def toy_world(monkeypatch):
    """DefaultTrainer on the toy model and data. `means` are what evaluations return, in turn."""
    world = SimpleNamespace(means=[], evaluated=[])

    def evaluate(cfg, model, datasets):
        mean = world.means.pop(0) if world.means else 50.0
        assert mean >= 0
        torch.rand(3)  # an evaluation that draws random numbers must not disturb training
        model.eval()
        world.evaluated.append(mean)
        return {"A": {"mAP": mean, "mean": mean - 1}, "B": {"mAP": mean, "mean": mean + 1}}

    def build_model(cfg):
        torch.manual_seed(cfg.MODEL.SEED)
        return ToyModel(cfg.MODEL.HEADS.NUM_CLASSES)

    samples = [Sample(f"{number}.jpg", number % IDENTITIES, 0, number % 2) for number in range(40)]
    train_set = SimpleNamespace(
        num_classes=IDENTITIES, num_views=2, samples=samples, datasets=[], held_out=[]
    )
    monkeypatch.setattr(trainer_module, "build_train_dataset", lambda cfg: train_set)
    monkeypatch.setattr(trainer_module, "build_test_datasets", lambda cfg: [])
    monkeypatch.setattr(
        trainer_module, "build_train_loader", lambda cfg, data, start_iter=0: ToyLoader(start_iter)
    )
    monkeypatch.setattr(trainer_module, "build_model", build_model)
    monkeypatch.setattr(trainer_module, "evaluate_protocols", evaluate)
    return world


@pytest.fixture
def caplog_fastreid(caplog, monkeypatch):
    """`caplog` for the package's logger, which does not propagate once it is set up."""
    monkeypatch.setattr(logging.getLogger("fastreid"), "propagate", True)
    caplog.set_level(logging.INFO, logger="fastreid")
    return caplog
