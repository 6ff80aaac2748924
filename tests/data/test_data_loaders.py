"""Training set, batches, and their independence of workers, ranks and starting point."""

import gc
import multiprocessing
import os
import signal
import time
from itertools import islice

import pytest
import torch
from PIL import Image

from fastreid.data import (
    Draw,
    build_test_datasets,
    build_test_loader,
    build_train_dataset,
    build_train_loader,
    build_transforms,
    fit_batch_size,
    read_image,
)
from fastreid.data.datasets import base
from fastreid.data.loaders import ReIDLoader
from fastreid.utils import comm
from fastreid.utils.errors import UserError, WorkerError


def train_batches(cfg, count, start_iter=0):
    loader = build_train_loader(cfg, build_train_dataset(cfg), start_iter)
    return list(islice(loader, count))


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch["img_paths"] == other["img_paths"]
        for key in ("images", "targets", "camids", "viewids"):
            assert torch.equal(batch[key], other[key])


def test_a_batch_with_more_identities_than_there_are_becomes_smaller(cargo_cfg, caplog):
    cargo_cfg.SOLVER.IMS_PER_BATCH, cargo_cfg.DATALOADER.NUM_INSTANCE = 64, 4
    fitted = fit_batch_size(cargo_cfg, build_train_dataset(cargo_cfg), world_size=1)
    assert fitted.SOLVER.IMS_PER_BATCH == 24
    assert (
        "IMS_PER_BATCH 64 is of 16 identities, and the training set has 6: batches are of 24" in caplog.text
    )
    assert cargo_cfg.SOLVER.IMS_PER_BATCH == 64


# ---------------------------------------------------------------------------------------- training set
def test_identities_are_relabelled_in_sorted_order(cargo_cfg):
    train_set = build_train_dataset(cargo_cfg)
    assert (train_set.num_classes, train_set.num_views, len(train_set)) == (6, 2, 48)
    assert train_set.names.identities == ("10", "11", "12", "13", "14", "15")
    assert train_set.names.views == ("aerial", "ground")
    assert train_set.names.cameras == {camid: str(camid + 1) for camid in range(13)}
    for sample in train_set.samples:
        assert f"_day_{10 + sample.pid}_" in sample.path


def test_joined_training_sets_keep_their_identities_apart(cargo_cfg, image_tree):
    image_tree([f"LAGPeR/bounding_box_train/x/{pid:04}_c{c}_1.jpg" for pid in (10, 99) for c in (1, 3)])
    cargo_cfg.DATASETS.NAMES = ["LAGPeR", "CARGO_AG"]
    train_set = build_train_dataset(cargo_cfg)
    assert train_set.num_classes == 8
    pids = {sample.path.rsplit("/", 1)[1]: sample.pid for sample in train_set.samples}
    assert (pids["0010_c1_1.jpg"], pids["0099_c3_1.jpg"]) == (0, 1)
    assert (pids["Cam1_day_10_0.jpg"], pids["Cam1_day_15_1.jpg"]) == (2, 7)
    assert train_set.names.identities[:3] == ("LAGPeR/0010", "LAGPeR/0099", "CARGO/10")
    assert (train_set.names.cameras[1], train_set.names.cameras[0]) == ("1 or 2", "1")


def test_combineall_trains_on_query_and_gallery_too(cargo_cfg):
    cargo_cfg.DATASETS.COMBINEALL = True
    train_set = build_train_dataset(cargo_cfg)
    assert (train_set.num_classes, len(train_set)) == (9, 48 + 12 + 24)


def test_training_on_the_test_images_of_a_protocol_across_views_keeps_their_cameras(cargo_cfg):
    cargo_cfg.DATASETS.NAMES, cargo_cfg.DATASETS.COMBINEALL = ["CARGO_AG"], True
    assert {sample.camid for sample in build_train_dataset(cargo_cfg).samples} == {0, 2, 5, 12}


def test_the_same_benchmark_twice_is_refused(cargo_cfg):
    cargo_cfg.DATASETS.NAMES = ["CARGO", "CARGO_AG"]
    with pytest.raises(UserError, match="joins the images of .*CARGO twice"):
        build_train_dataset(cargo_cfg)


@pytest.mark.parametrize(("key", "build"), [("NAMES", build_train_dataset), ("TESTS", build_test_datasets)])
def test_no_dataset_or_an_unknown_one_is_refused_with_the_key(cargo_cfg, key, build):
    cargo_cfg.DATASETS[key] = []
    with pytest.raises(UserError, match=rf"DATASETS\.{key} is empty"):
        build(cargo_cfg)
    cargo_cfg.DATASETS[key] = ["CARGO_GA"]
    with pytest.raises(UserError, match="unknown dataset 'CARGO_GA' .* Did you mean 'CARGO"):
        build(cargo_cfg)


def test_a_view_without_training_images_is_a_warning(tmp_path, image_tree, cargo_cfg, caplog):
    image_tree([f"LAGPeR/bounding_box_train/x/0001_c3_{index}.jpg" for index in range(3)])
    cargo_cfg.DATASETS.NAMES = ["LAGPeR"]
    build_train_dataset(cargo_cfg)
    assert "none of the 3 training images of ['LAGPeR'] shows view 1 (ground)" in caplog.text


# ------------------------------------------------------------------------------------ training batches
def test_a_training_batch_has_the_keys_shapes_and_types_of_the_contract(cargo_cfg):
    loader = build_train_loader(cargo_cfg, build_train_dataset(cargo_cfg))
    batch = next(iter(loader))
    assert set(batch) == {"images", "targets", "camids", "viewids", "img_paths"}
    assert batch["images"].shape == (8, 3, 32, 16)
    assert batch["images"].dtype == torch.uint8
    for key in ("targets", "camids", "viewids"):
        assert batch[key].shape == (8,)
        assert batch[key].dtype == torch.int64
    samples = {sample.path: sample for sample in loader.dataset.samples}
    for row, path in enumerate(batch["img_paths"]):
        labels = tuple(int(batch[key][row]) for key in ("targets", "camids", "viewids"))
        assert labels == (samples[path].pid, samples[path].camid, samples[path].viewid)
    assert len(loader) == 48 // 8


def test_pixels_are_the_files_when_nothing_is_augmented(cargo_cfg):
    for key in ("FLIP", "PADDING", "REA"):
        cargo_cfg.INPUT[key].ENABLED = False
    (batch,) = train_batches(cargo_cfg, 1)
    resize = build_transforms(cargo_cfg, is_train=False)
    for image, path in zip(batch["images"], batch["img_paths"], strict=True):
        assert torch.equal(image, resize(read_image(path)))


def test_epoch_length_follows_the_configuration(cargo_cfg):
    train_set = build_train_dataset(cargo_cfg)
    cargo_cfg.SOLVER.ITERS_PER_EPOCH = 11
    assert len(build_train_loader(cargo_cfg, train_set)) == 11
    cargo_cfg.SOLVER.ITERS_PER_EPOCH = 0
    cargo_cfg.SOLVER.IMS_PER_BATCH = 96
    cargo_cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    assert len(build_train_loader(cargo_cfg, train_set)) == 1


def test_batches_do_not_depend_on_workers(cargo_cfg):
    expected = train_batches(cargo_cfg, 7)
    for workers in (1, 2):
        cargo_cfg.DATALOADER.NUM_WORKERS = workers
        assert_same(train_batches(cargo_cfg, 7), expected)


@pytest.mark.parametrize("sampler", ["TrainingSampler", "NaiveIdentitySampler", "AGSampler"])
def test_batches_do_not_depend_on_where_the_run_starts(cargo_cfg, sampler):
    cargo_cfg.DATALOADER.SAMPLER_TRAIN = sampler
    expected = train_batches(cargo_cfg, 13)
    assert_same(train_batches(cargo_cfg, 4, start_iter=9), expected[9:])


def test_batches_do_not_depend_on_the_global_generator_nor_touch_it(cargo_cfg):
    torch.manual_seed(1)
    first = train_batches(cargo_cfg, 3)
    torch.manual_seed(2)
    expected = torch.rand(4)
    torch.manual_seed(2)
    assert_same(train_batches(cargo_cfg, 3), first)
    cargo_cfg.DATALOADER.NUM_WORKERS = 1
    train_batches(cargo_cfg, 1)
    assert torch.equal(torch.rand(4), expected)


def test_an_images_augmentation_depends_on_seed_and_draw_number_alone(cargo_cfg):
    train_set = build_train_dataset(cargo_cfg)
    first = train_set[Draw(5, 100)]["images"]
    assert torch.equal(train_set[Draw(5, 100)]["images"], first)
    assert not torch.equal(train_set[Draw(5, 101)]["images"], first)
    cargo_cfg.MODEL.SEED = 3
    assert not torch.equal(build_train_dataset(cargo_cfg)[Draw(5, 100)]["images"], first)


def test_two_ranks_share_the_batch_of_one(cargo_cfg, monkeypatch):
    expected = train_batches(cargo_cfg, 4)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        parts.append(train_batches(cargo_cfg, 4))
    for whole, first, second in zip(expected, *parts, strict=True):
        assert first["targets"].shape == (4,)
        assert torch.equal(torch.cat([first["images"], second["images"]]), whole["images"])
        assert first["img_paths"] + second["img_paths"] == whole["img_paths"]


# ---------------------------------------------------------------------------------------- test batches
def test_the_test_datasets_are_the_named_protocols(cargo_cfg):
    cargo_cfg.DATASETS.TESTS = ["CARGO_AG", "CARGO_GG"]
    datasets = build_test_datasets(cargo_cfg)
    assert [dataset.name for dataset in datasets] == ["CARGO_AG", "CARGO_GG"]
    assert [len(dataset.query) for dataset in datasets] == [12, 6]


def test_protocols_of_a_benchmark_scan_its_folders_once(cargo_cfg, monkeypatch):
    scanned, scan_images = [], base.scan_images
    monkeypatch.setattr(base, "scan_images", lambda folder: scanned.append(folder) or scan_images(folder))
    cargo_cfg.DATASETS.TESTS = ["CARGO", "CARGO_GG", "CARGO_AG"]
    whole, ground, across = build_test_datasets(cargo_cfg)
    assert [os.path.basename(folder) for folder in scanned] == ["query", "gallery"]
    assert ground.gallery == [sample for sample in whole.gallery if sample.viewid == 1]
    assert [s.path for s in across.gallery] == [s.path for s in whole.gallery]
    assert whole.gallery[0].match_id == whole.gallery[0].camid  # those across views have their own samples


@pytest.mark.parametrize("workers", [0, 2])
def test_the_test_loader_keeps_order_and_drops_nothing(cargo_cfg, workers):
    cargo_cfg.DATALOADER.NUM_WORKERS = workers
    cargo_cfg.TEST.IMS_PER_BATCH = 7
    (dataset,) = build_test_datasets(cargo_cfg)
    samples = dataset.gallery[::-1]
    batches = list(build_test_loader(cargo_cfg, samples))
    assert [len(batch["img_paths"]) for batch in batches] == [7, 7, 7, 3]
    assert [path for batch in batches for path in batch["img_paths"]] == [s.path for s in samples]
    for key, field in (("targets", "pid"), ("camids", "camid"), ("viewids", "viewid")):
        assert torch.cat([batch[key] for batch in batches]).tolist() == [getattr(s, field) for s in samples]
    resize = build_transforms(cargo_cfg, is_train=False)
    images = torch.cat([batch["images"] for batch in batches])
    assert torch.equal(images, torch.stack([resize(read_image(sample.path)) for sample in samples]))


# ---------------------------------------------------------------------------------------------- faults
@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_ends_the_run_with_one_line_that_names_it(cargo_cfg, workers):
    cargo_cfg.DATALOADER.NUM_WORKERS = workers
    (dataset,) = build_test_datasets(cargo_cfg)
    broken = dataset.query[5].path
    with open(broken, "rb+") as file:
        file.truncate(100)
    with pytest.raises(UserError, match=r"^cannot read image ") as error:
        list(build_test_loader(cargo_cfg, dataset.query))
    assert broken in error.value.problem
    assert "\n" not in error.value.problem
    assert error.value.fix == "restore the file"


def test_odd_images_become_batches(cargo_cfg):
    (dataset,) = build_test_datasets(cargo_cfg)
    for sample, mode in zip(dataset.query, ("L", "CMYK", "RGB", "L"), strict=False):
        Image.new(mode, (1, 1)).save(sample.path)
    (batch,) = build_test_loader(cargo_cfg, dataset.query)
    assert batch["images"].shape == (12, 3, 32, 16)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("busy", ["with the batches", "elsewhere"])
def test_a_killed_worker_ends_the_run_with_the_cause(busy, cargo_cfg):
    cargo_cfg.DATALOADER.NUM_WORKERS = 2
    batches = iter(build_train_loader(cargo_cfg, build_train_dataset(cargo_cfg)))
    others = {process.pid for process in multiprocessing.active_children()}
    next(batches)
    worker = next(p.pid for p in multiprocessing.active_children() if p.pid not in others)
    with pytest.raises(WorkerError, match="lower DATALOADER"):  # noqa: PT012  (raised by a signal handler)
        os.kill(worker, signal.SIGKILL)
        if busy == "elsewhere":
            time.sleep(100)
        for _ in range(100):
            next(batches)


def test_workers_are_forked_in_a_spawned_process_too_and_no_signal_ends_them(monkeypatch):
    class Signalled:  # of no module: it could not be sent to a spawned worker
        replaced = set()

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> dict:
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
            return {"images": torch.full((3, 2, 2), index, dtype=torch.uint8)}

    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(multiprocessing.context._default_context, "_actual_context", context)
    batches = list(ReIDLoader(Signalled(), num_workers=1, batch_size=1))
    assert [batch["images"].unique().tolist() for batch in batches] == [[0], [1]]


def test_an_error_of_the_program_keeps_its_type_and_its_traceback(cargo_cfg):
    (dataset,) = build_test_datasets(cargo_cfg)
    cargo_cfg.DATALOADER.NUM_WORKERS = 1
    loader = build_test_loader(cargo_cfg, dataset.query)
    loader.dataset._transform = None
    with pytest.raises(TypeError, match="Original Traceback"):
        list(loader)


def test_a_collection_of_garbage_in_a_worker_leaves_the_objects_of_the_main_process_alone():
    class Counting:
        replaced = set()

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> dict:
            counts = {"own": len(gc.get_objects()), "left": gc.get_freeze_count()}
            return {"images": torch.zeros(3, 2, 2), **counts}

    before = len(gc.get_objects())
    (batch,) = ReIDLoader(Counting(), num_workers=1, batch_size=1)
    assert batch["left"] > 0.9 * before > 10 * batch["own"]
