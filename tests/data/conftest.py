from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

from fastreid.config import CfgNode, get_cfg
from fastreid.data import Sample


@pytest.fixture
def image_tree(tmp_path: Path) -> Callable[[Iterable[str]], Path]:
    """Writes tiny images at paths relative to a new root, and returns the root."""

    def write(paths: Iterable[str]) -> Path:
        for number, path in enumerate(paths):
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (1 + number % 4, 2 + number % 7), (number % 256, 100, 50)).save(file)
        return tmp_path

    return write


@pytest.fixture
def cargo_cfg(noise_cargo: Path) -> CfgNode:
    """The small CARGO of noise, in batches of 8."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.ROOT = str(noise_cargo)
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [32, 16]
    cfg.INPUT.PADDING.SIZE = 4
    cfg.SOLVER.IMS_PER_BATCH = 8
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


@pytest.fixture
def make_samples() -> Callable[[dict[int, dict[tuple[int, int], int]]], list[Sample]]:
    """Samples from ``{pid: {(camid, viewid): number of images}}``; the path is the index."""

    def make(counts: dict[int, dict[tuple[int, int], int]]) -> list[Sample]:
        places = [
            (pid, camid, viewid)
            for pid, cells in counts.items()
            for (camid, viewid), images in cells.items()
            for _ in range(images)
        ]
        return [Sample(str(index), *place) for index, place in enumerate(places)]

    return make
