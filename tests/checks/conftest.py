"""A small CARGO, a configuration that trains on it, and what the checks say of a part by name."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastreid.checks import Finding
from fastreid.config import CfgNode, get_cfg

CAMERAS = (1, 3, 6, 13)  # two aerial, two ground
SIZES = {"train": (range(10, 16), 2), "query": (range(20, 23), 1), "gallery": (range(20, 23), 2)}


@pytest.fixture(scope="session")
def cargo_template(tmp_path_factory) -> Path:
    """6 training identities with 2 images in each of 4 cameras, 3 test identities."""
    root = tmp_path_factory.mktemp("template")
    rng = np.random.default_rng(0)
    for split, (pids, images) in SIZES.items():
        for camera in CAMERAS:
            folder = root / "CARGO" / split / f"Cam{camera}"
            folder.mkdir(parents=True)
            for pid in pids:
                for index in range(images):
                    pixels = rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"Cam{camera}_day_{pid}_{index}.jpg")
    return root


@pytest.fixture
def cargo(cargo_template, tmp_path) -> Path:
    """A CARGO of the test's own, to be damaged."""
    shutil.copytree(cargo_template / "CARGO", tmp_path / "CARGO")
    return tmp_path / "CARGO"


@pytest.fixture
def cfg(cargo: Path) -> CfgNode:
    """Trains a tiny Stage 1 on that CARGO, evaluates it across views."""
    cfg = get_cfg()
    values = {
        "MODEL": {
            "DEVICE": "cpu",
            "BACKBONE": {
                "DEPTH": "custom",
                "FEAT_DIM": 64,
                "NUM_LAYERS": 3,
                "NUM_HEADS": 2,
                "PRETRAIN": False,
            },
            "SDMODEL": {
                "UNET_CONFIG": {"WIDTHS": [32, 32, 32], "TRAINABLE_BLOCK_IDX": [0, 1]},
                "CON_LEARNER_CONFIG": {"HEADS": 4},
            },
        },
        "INPUT": {"SIZE_TRAIN": [32, 16], "SIZE_TEST": [32, 16], "PADDING": {"SIZE": 2}},
        "DATASETS": {"ROOT": str(cargo.parent), "NAMES": ["CARGO"], "TESTS": ["CARGO_A2G", "CARGO_AG"]},
        "DATALOADER": {"NUM_WORKERS": 0},
        "SOLVER": {"IMS_PER_BATCH": 8, "MAX_EPOCH": 10, "WARMUP_ITERS": 5},
        "OUTPUT_DIR": str(cargo.parent / "run"),
    }
    cfg.merge_values(values, source="test")
    return cfg


@pytest.fixture
def said() -> Callable[..., str]:
    """`said(findings, level, check)`: found and fix of the one finding of that level and check."""

    def find(findings: Sequence[Finding], level: str, check: str) -> str:
        (text,) = [f"{f.found} | {f.fix}" for f in findings if (f.level, f.check) == (level, check)]
        return text

    return find
