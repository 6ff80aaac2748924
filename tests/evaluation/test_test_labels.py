"""Labels of test images: which ones a model may read, and which ones a protocol leaves out by."""

import numpy as np
import pytest
import torch
from PIL import Image
from toy_evaluation import ToyModel, make_cfg

from fastreid.data import build_test_datasets, build_test_loader
from fastreid.data.loaders import queries_with_match
from fastreid.evaluation import evaluate_protocols
from fastreid.evaluation.evaluator import sample_labels


class CameraModel(ToyModel):
    """Adds a vector of its own for each camera and each view to the features."""

    test_labels = frozenset({"camids", "viewids"})

    def __init__(self) -> None:
        super().__init__()
        self.of_camera = torch.randn(13, 70, generator=torch.manual_seed(1))
        self.of_view = torch.randn(2, 70, generator=torch.manual_seed(2))

    def forward(self, batch):
        labels = self.of_camera[batch["camids"]] + self.of_view[batch["viewids"]]
        return super().forward(batch) + labels


@pytest.fixture
def cfg(tmp_path):
    """Four persons before two aerial and two ground cameras of CARGO."""
    rng = np.random.default_rng(0)
    for split in ("query", "gallery"):
        for camera in (1, 3, 6, 13):
            folder = tmp_path / "CARGO" / split / f"Cam{camera}"
            folder.mkdir(parents=True)
            for pid in range(4):
                pixels = rng.integers(0, 256, (8, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"Cam{camera}_day_{pid}_{split == 'query':d}.jpg")
    cfg = make_cfg(tmp_path)
    cfg.DATASETS.ROOT, cfg.MODEL.DEVICE = str(tmp_path), "cpu"
    return cfg


def evaluate(cfg, *names):
    cfg.DATASETS.TESTS = list(names)
    return evaluate_protocols(cfg, CameraModel(), build_test_datasets(cfg))


def test_results_do_not_depend_on_the_other_protocols_or_their_order(cfg):
    """Protocols that count views as cameras must not change the cameras that the model reads."""
    alone = {name: evaluate(cfg, name)[name] for name in ("CARGO", "CARGO_AG")}
    assert evaluate(cfg, "CARGO", "CARGO_AG") == alone
    assert evaluate(cfg, "CARGO_AG", "CARGO") == alone
    assert alone["CARGO"]["mAP"] != alone["CARGO_AG"]["mAP"]


def test_loaders_give_cameras_and_views_of_every_dataset(cfg):
    cfg.DATASETS.TESTS = ["CARGO_AG"]
    (dataset,) = build_test_datasets(cfg)
    batches = list(build_test_loader(cfg, dataset.query))
    assert {int(camid) for batch in batches for camid in batch["camids"]} == {0, 2, 5, 12}
    assert {int(viewid) for batch in batches for viewid in batch["viewids"]} == {0, 1}


def test_gallery_images_are_left_out_by_match_id(cfg):
    cfg.DATASETS.TESTS = ["CARGO", "CARGO_AG"]
    by_camera, by_view = build_test_datasets(cfg)
    assert set(sample_labels(by_camera.query, by_camera.gallery).g_camids) == {0, 2, 5, 12}
    assert set(sample_labels(by_view.query, by_view.gallery).g_camids) == {0, 1}


def test_a_query_has_a_match_where_the_protocol_leaves_one(cfg):
    cfg.DATASETS.TESTS = ["CARGO", "CARGO_AG"]
    by_camera, by_view = build_test_datasets(cfg)
    for dataset in (by_camera, by_view):
        dataset.gallery[:] = [sample for sample in dataset.gallery if sample.viewid == 0]
    assert (queries_with_match(by_camera), queries_with_match(by_view)) == (16, 8)
