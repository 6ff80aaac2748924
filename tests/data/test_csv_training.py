"""Both stages and the evaluation on a CSV file of three views, through the training program."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from worlds.options import DEMO, TINY
from worlds.programs import run_tool

from fastreid.evaluation.report import read_results

VIEWS = ("drone", "cctv", "wearable")
BRIEF = ["MODEL.SDMODEL.VIEW_NUM", "3", "SOLVER.MAX_EPOCH", "1", "SOLVER.IMS_PER_BATCH", "8"]


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """A CSV file with ten persons, as noise, in three views; protocols D2C and W2C."""
    folder = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    lines = ["path,pid,camid,view,split,protocol"]
    for pid in range(10):
        for camid, view in enumerate(VIEWS):
            for frame in range(2):
                path = f"{pid}_{view}_{frame}.png"
                pixels = rng.integers(0, 256, (64, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / path)
                splits = {"cctv": ["gallery,"], "drone": ["query,D2C"], "wearable": ["query,W2C"]}[view]
                for split in ["train,"] if pid < 4 else splits:
                    lines.append(f"{path},{pid},{camid},{view},{split}")
    (folder / "people.csv").write_text("\n".join(lines))
    return folder / "people.csv"


@pytest.fixture
def train_net(monkeypatch, tmp_path, people):
    """Calls the training program in an empty folder, on the CSV file."""
    monkeypatch.chdir(tmp_path)
    data = ["DATASETS.CSV", people, "DATASETS.NAMES", '["CSVDataset"]']
    data += ["DATASETS.TESTS", '["CSVDataset", "CSVDataset_D2C", "CSVDataset_W2C"]']

    def call(stage: int, *more: str) -> dict:
        ran = run_tool("train_net.py", "--config-file", DEMO[stage], *TINY, *BRIEF, *data, *more)
        assert ran.code == 0, ran.err
        return read_results(tmp_path / more[-1])["results"]

    return call


def test_two_stages_train_and_evaluate_on_a_csv_file(train_net, tmp_path):
    stage1 = train_net(1, "OUTPUT_DIR", "stage1")
    weights = ("MODEL.WEIGHTS", tmp_path / "stage1" / "model_best.pth")
    stage2 = train_net(2, *weights, "OUTPUT_DIR", "stage2")
    weights = ("MODEL.WEIGHTS", tmp_path / "stage2" / "model_best.pth")
    again = train_net(2, "--eval-only", *weights, "OUTPUT_DIR", "again")
    for results in (stage1, stage2):
        assert set(results) == {"CSVDataset", "CSVDataset_D2C", "CSVDataset_W2C"}
        assert all(0 < metrics["mAP"] <= 100 for metrics in results.values())
    assert again == stage2
    assert {name: (r["queries"], r["gallery"]) for name, r in again.items()} == {
        "CSVDataset": (24, 12),
        "CSVDataset_D2C": (12, 12),
        "CSVDataset_W2C": (12, 12),
    }
    model = torch.load(tmp_path / "stage2" / "model_best.pth", weights_only=True)["model"]
    assert model["memory_bank.seen"].tolist() == [True] * 3
