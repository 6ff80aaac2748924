"""The small CARGO of noise, a configuration that trains on it, and what the checks say of a part by name."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from worlds.options import tiny_cfg

from fastreid.checks import Finding
from fastreid.config import CfgNode


@pytest.fixture
def cargo(noise_cargo) -> Path:
    """A CARGO of the test's own, to be damaged."""
    return noise_cargo / "CARGO"


@pytest.fixture
def cfg(noise_cargo: Path) -> CfgNode:
    """Trains a tiny Stage 1 on that CARGO, evaluates it across views."""
    solver = ("SOLVER.IMS_PER_BATCH", "8", "SOLVER.MAX_EPOCH", "10", "SOLVER.WARMUP_ITERS", "5")
    sizes = ("MODEL.BACKBONE.FEAT_DIM", "64", "INPUT.SIZE_TRAIN", "[32, 16]", "INPUT.SIZE_TEST", "[32, 16]")
    unet = ("MODEL.SDMODEL.UNET_CONFIG.WIDTHS", "[32, 32, 32]")
    unet += ("MODEL.SDMODEL.UNET_CONFIG.TRAINABLE_BLOCK_IDX", "[0, 1]")
    return tiny_cfg(noise_cargo, *solver, *sizes, *unet, "DATASETS.TESTS", "['CARGO_A2G', 'CARGO_AG']")


@pytest.fixture
def said() -> Callable[..., str]:
    """`said(findings, level, check)`: found and fix of the one finding of that level and check."""

    def find(findings: Sequence[Finding], level: str, check: str) -> str:
        (text,) = [f"{f.found} | {f.fix}" for f in findings if (f.level, f.check) == (level, check)]
        return text

    return find
