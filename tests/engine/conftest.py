"""Fixtures: a configuration and a DefaultTrainer on the toy model and data."""

from pathlib import Path

import pytest
from toy_training import ToyTrainer

from fastreid.config import get_cfg
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
def program_log():
    """Logging is set up as in the program."""
    setup_logger()


@pytest.fixture
def toy_trainer() -> type[ToyTrainer]:
    """A `ToyTrainer` of its own for the test."""
    return type("Trainer", (ToyTrainer,), {"means": [], "evaluated": []})
