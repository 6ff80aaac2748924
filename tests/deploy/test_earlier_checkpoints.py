"""Checkpoints from before files named their method: they load, and give the same features and metrics.

``earlier/`` holds one of each stage and what commit b32090b computed with it, on the pictures made here.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from worlds.programs import run_tool

from fastreid import ReIDModel
from fastreid.evaluation.report import read_results

EARLIER = Path(__file__).with_name("earlier")
CAMERAS = (1, 4, 7, 13)  # two aerial, two ground
METHODS = {1: "SDReIDStage1", 2: "SDReIDStage2"}


def draw_pictures(count: int = 4) -> list[np.ndarray]:
    """Draw (64, 32, 3) uint8 pictures that depend on nothing but numpy."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 32, 3), dtype=np.uint8) for _ in range(count)]


def write_cargo(root: Path) -> Path:
    """Write a CARGO of 12 test persons as lossless pictures: a person's colours and noise."""
    for split, images in (("query", 1), ("gallery", 2)):
        for pid in range(12):
            person = np.random.default_rng(pid).integers(0, 256, (4, 1, 3))
            for camera in CAMERAS:
                folder = root / "CARGO" / split / f"Cam{camera}"
                folder.mkdir(parents=True, exist_ok=True)
                for index in range(images):
                    rng = np.random.default_rng([pid, camera, index, images])
                    noise = rng.integers(-120, 121, (64, 32, 3))
                    pixels = np.clip(person.repeat(16, 0) + noise, 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / f"Cam{camera}_day_{pid}_{index}.png")
    return root


@pytest.mark.parametrize("stage", METHODS)
def test_features_are_the_same(stage):
    model = ReIDModel.from_checkpoint(EARLIER / f"stage{stage}.pth", device="cpu")
    assert model.method == METHODS[stage]
    expected = json.loads((EARLIER / f"stage{stage}.json").read_text())["features"]
    np.testing.assert_allclose(model.extract(draw_pictures()), expected, atol=2e-5)


@pytest.mark.parametrize("stage", METHODS)
def test_metrics_are_the_same(stage, tmp_path):
    root = write_cargo(tmp_path)
    checkpoint = EARLIER / f"stage{stage}.pth"
    options = ["MODEL.WEIGHTS", checkpoint, "DATASETS.ROOT", root, "OUTPUT_DIR", tmp_path / "out"]
    config = EARLIER / f"stage{stage}.yaml"
    code, _, error = run_tool("train_net.py", "--config-file", config, "--eval-only", *options)
    assert code == 0, error
    results = read_results(tmp_path / "out")["results"]
    expected = json.loads((EARLIER / f"stage{stage}.json").read_text())["results"]
    for protocol, metrics in expected.items():
        assert {name: results[protocol][name] for name in metrics} == pytest.approx(metrics)
