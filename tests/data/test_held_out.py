"""Identities kept out of training (DATASETS.HELD_OUT_IDS), to choose on."""

import shutil

import pytest

from fastreid.data import build_train_dataset
from fastreid.engine import DefaultTrainer
from fastreid.utils.errors import UserError


def pids_in(samples) -> set[int]:
    return {int(sample.path.split("_")[-2]) for sample in samples}


def test_held_out_identities_are_not_trained_on_and_all_their_images_are_evaluated(cargo_cfg):
    cargo_cfg.DATASETS.HELD_OUT_IDS = 2
    train_set = build_train_dataset(cargo_cfg)
    kept_aside = pids_in(train_set.held_out[0].query)
    assert len(kept_aside) == 2
    assert pids_in(train_set.samples) == {10, 11, 12, 13, 14, 15} - kept_aside
    assert {sample.pid for sample in train_set.samples} == {0, 1, 2, 3}
    assert train_set.num_classes == 4
    evaluated = {s.path for protocol in train_set.held_out for s in (*protocol.query, *protocol.gallery)}
    assert len(evaluated) == 2 * 4 * 2  # identities x cameras x images


def test_every_ordered_pair_of_views_is_a_protocol(cargo_cfg):
    cargo_cfg.DATASETS.HELD_OUT_IDS = 2
    protocols = build_train_dataset(cargo_cfg).held_out
    assert [protocol.name for protocol in protocols] == [
        "CARGO_held_out_aerial_to_ground",
        "CARGO_held_out_ground_to_aerial",
    ]
    assert [({s.viewid for s in p.query}, {s.viewid for s in p.gallery}) for p in protocols] == [
        ({0}, {1}),
        ({1}, {0}),
    ]


def test_the_seed_does_not_choose_them(cargo_cfg):
    cargo_cfg.DATASETS.HELD_OUT_IDS = 3
    first = pids_in(build_train_dataset(cargo_cfg).held_out[0].query)
    cargo_cfg.MODEL.SEED += 1
    assert pids_in(build_train_dataset(cargo_cfg).held_out[0].query) == first


def test_none_by_default(cargo_cfg):
    assert build_train_dataset(cargo_cfg).held_out == []


def test_two_identities_must_be_left(cargo_cfg):
    cargo_cfg.DATASETS.HELD_OUT_IDS = 5
    with pytest.raises(UserError, match="HELD_OUT_IDS is 5, but .* have 6 training identities"):
        build_train_dataset(cargo_cfg)


def test_identities_of_one_view_cannot_be_evaluated_on(cargo_cfg):
    for camera in (6, 13):
        shutil.rmtree(f"{cargo_cfg.DATASETS.ROOT}/CARGO/train/Cam{camera}")
    cargo_cfg.DATASETS.HELD_OUT_IDS = 2
    with pytest.raises(UserError, match="none of the 2 held-out identities is seen in two views"):
        build_train_dataset(cargo_cfg)


def test_a_missing_held_out_image_stops_the_run_even_when_training_may_skip(cargo_cfg):
    cargo_cfg.DATASETS.HELD_OUT_IDS = 2
    cargo_cfg.DATALOADER.ON_BAD_IMAGE = "skip"
    path = build_train_dataset(cargo_cfg).held_out[0].query[0].path
    open(path, "wb").close()
    with pytest.raises(UserError, match="held out are missing or empty"):
        build_train_dataset(cargo_cfg)


def test_the_trainer_evaluates_on_them_and_needs_no_test_data(cargo_cfg, tmp_path):
    cargo_cfg.merge_values(
        {
            "MODEL": {"BACKBONE": {"DEPTH": "custom", "FEAT_DIM": 32, "NUM_LAYERS": 2, "NUM_HEADS": 2}},
            "SOLVER": {"MAX_EPOCH": 1, "ITERS_PER_EPOCH": 1},
            "OUTPUT_DIR": str(tmp_path / "run"),
        },
        "test",
    )
    cargo_cfg.MODEL.BACKBONE.PRETRAIN = False
    cargo_cfg.DATASETS.HELD_OUT_IDS = 2
    for split in ("query", "gallery"):
        shutil.rmtree(f"{cargo_cfg.DATASETS.ROOT}/CARGO/{split}")
    results = DefaultTrainer(cargo_cfg).train()
    assert list(results) == ["CARGO_held_out_aerial_to_ground", "CARGO_held_out_ground_to_aerial"]
    assert (tmp_path / "run/model_best.pth").exists()


def test_they_are_not_trained_on_with_their_query_and_gallery_images_either(cargo_cfg):
    root = f"{cargo_cfg.DATASETS.ROOT}/CARGO"
    shutil.copytree(f"{root}/train", f"{root}/gallery", dirs_exist_ok=True)
    cargo_cfg.DATASETS.HELD_OUT_IDS = 2
    cargo_cfg.DATASETS.COMBINEALL = True
    train_set = build_train_dataset(cargo_cfg)
    assert not pids_in(train_set.samples) & pids_in(train_set.held_out[0].query)
