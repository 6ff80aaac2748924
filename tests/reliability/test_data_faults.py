"""Images that cannot be read, and data that does not suffice: found early, named, or replaced on request."""

import logging
import multiprocessing
import os
import signal
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import arguments, finish, read_until, start, train

from fastreid.config import get_cfg
from fastreid.data import (
    Draw,
    build_test_datasets,
    build_test_loader,
    build_train_dataset,
    build_train_loader,
    read_image,
)
from fastreid.data.bad_images import missing_or_empty
from fastreid.utils.errors import UserError


@pytest.fixture
def cfg(own_cargo):
    cfg = get_cfg()
    cfg.merge_from_list(arguments(1, own_cargo, own_cargo / "run")[2:])
    cfg.merge_from_list(["INPUT.SIZE_TRAIN", "[32, 16]", "DATASETS.TESTS", "['CARGO_AG']"])
    return cfg


@pytest.fixture
def skipping(cfg):
    cfg.DATALOADER.ON_BAD_IMAGE = "skip"
    return cfg


@pytest.fixture(autouse=True)
def _log_to_caplog(caplog):
    caplog.set_level(logging.INFO, logger="fastreid")


def train_images(root) -> list[str]:
    return sorted(map(str, (root / "CARGO" / "train").rglob("*.jpg")))


def truncate(path: str, size: int) -> None:
    with open(path, "rb+") as file:
        file.truncate(size)


# --------------------------------- before training starts
def test_missing_and_empty_files_are_found_without_opening_any(tmp_path):
    (tmp_path / "good.jpg").write_bytes(b"x")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "broken_link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "good.jpg")
    names = ["good.jpg", "empty.jpg", "broken_link.jpg", "link.jpg", "absent.jpg", "no/folder.jpg"]
    bad = missing_or_empty([str(tmp_path / name) for name in names])
    expected = ("absent.jpg", "broken_link.jpg", "empty.jpg", "no/folder.jpg")
    assert bad == [str(tmp_path / n) for n in expected]


def test_files_of_the_current_folder_are_found_by_their_bare_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.jpg").write_bytes(b"x")
    assert missing_or_empty(["here.jpg", "./here.jpg", "gone.jpg", "no/such.jpg"]) == [
        "gone.jpg",
        "no/such.jpg",
    ]


def test_a_folder_that_may_not_be_read_is_named(monkeypatch):
    def refuse(folder: str):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="cannot read folder shut: Permission denied"):
        missing_or_empty(["shut/a.jpg"])


def test_empty_training_images_stop_the_run_with_their_number_and_names(cfg, own_cargo):
    images = train_images(own_cargo)
    for path in images[:5]:
        truncate(path, 0)
    with pytest.raises(UserError, match=rf"^5 of the {len(images)} images of .*CARGO.*ON_BAD_IMAGE") as error:
        build_train_dataset(cfg)
    assert images[0] in str(error.value)
    assert images[4] not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_empty_test_images_always_stop_the_run(cfg, own_cargo, on_bad_image):
    cfg.DATALOADER.ON_BAD_IMAGE = on_bad_image
    query = build_test_datasets(cfg)[0].query
    truncate(query[0].path, 0)
    with pytest.raises(UserError, match=r"^1 of the .*TESTS.* are missing or empty") as error:
        build_test_datasets(cfg)
    assert query[0].path in str(error.value)
    assert "skip" not in str(error.value)


# --------------------------------- replacement
def batches(cfg, count, start_iter=0) -> list[dict]:
    return list(islice(build_train_loader(cfg, build_train_dataset(cfg), start_iter), count))


def test_a_bad_image_is_replaced_by_one_of_its_identity(skipping, own_cargo, caplog):
    images = train_images(own_cargo)
    truncate(images[3], 0)
    truncate(images[7], 100)
    train_set = build_train_dataset(skipping)
    assert f"1 of the {len(images)} images" in caplog.text
    index = next(i for i, sample in enumerate(train_set.samples) if sample.path == images[7])
    stand_ins = set()
    for number in range(20):
        item = train_set[Draw(index, number)]
        assert item["targets"] == train_set.samples[index].pid
        assert item["img_paths"] not in (images[3], images[7])
        assert item["bad_images"][0] == images[7]
        again = train_set[Draw(index, number)]
        assert again["img_paths"] == item["img_paths"]
        assert torch.equal(again["images"], item["images"])
        stand_ins.add(item["img_paths"])
    assert len(stand_ins) > 1  # the draw's number decides, not the file alone


def test_another_identity_stands_in_when_none_of_its_own_images_can_be_read(skipping, own_cargo):
    train_set = build_train_dataset(skipping)
    lost = train_set.samples[0].pid
    for sample in train_set.samples:
        if sample.pid == lost:
            truncate(sample.path, 50)
    item = train_set[Draw(0, 1)]
    by_path = {sample.path: sample.pid for sample in train_set.samples}
    assert item["targets"] == by_path[item["img_paths"]] != lost


def test_no_readable_image_at_all_is_an_error(skipping, own_cargo):
    train_set = build_train_dataset(skipping)
    for path in train_images(own_cargo):
        truncate(path, 50)
    with pytest.raises(UserError, match="none of the .* images can be read"):
        train_set[Draw(0, 0)]


def test_replacements_do_not_depend_on_workers_or_the_start_and_are_counted(skipping, own_cargo):
    for path in train_images(own_cargo)[::4]:
        truncate(path, 60)
    expected = batches(skipping, 6)
    counts = []
    for workers in (0, 2):
        skipping.DATALOADER.NUM_WORKERS = workers
        train_set = build_train_dataset(skipping)
        found = list(islice(build_train_loader(skipping, train_set), 6))
        assert all(torch.equal(a["images"], b["images"]) for a, b in zip(found, expected, strict=True))
        assert set(found[0]) == {"images", "targets", "camids", "viewids", "img_paths"}
        counts.append(train_set.replaced)
    assert counts[0] == counts[1]
    assert set(counts[0]) <= set(train_images(own_cargo)[::4])
    assert counts[0].total() > 1
    late = batches(skipping, 2, start_iter=4)
    assert all(torch.equal(a["images"], b["images"]) for a, b in zip(late, expected[4:], strict=True))


def test_a_run_counts_and_lists_replaced_images_at_its_end_also_after_a_resume(own_cargo, tmp_path):
    images = train_images(own_cargo)
    bad = images[: len(images) // 4]
    for path in bad:
        truncate(path, 40)
    line = arguments(1, own_cargo, tmp_path / "run", "DATALOADER.ON_BAD_IMAGE", "skip")
    assert train(*line).code == 0
    text = (tmp_path / "run" / "log.txt").read_text()
    report = text.split("could not be read; others replaced them")[1].split("Checkpoint")[0]
    listed = [row.split(" x ") for row in report.splitlines() if " x " in row]
    assert {path for _, path in listed} <= set(bad)
    times = int(report.split(" times")[0])
    assert sum(int(count) for count, _ in listed) == times > 0

    (tmp_path / "run" / "model_final.pth").unlink()  # go on from the middle
    assert not (tmp_path / "run" / "model_0001.pth").exists()
    (tmp_path / "run" / "last_checkpoint").write_text("model_latest.pth\n")
    assert train(*line, "--resume").code == 0
    again = (tmp_path / "run" / "log.txt").read_text()[len(text) :]
    assert f"others replaced them{report.splitlines()[0]}" in again


def test_an_unreadable_image_ends_the_run_at_the_first_touch_naming_file_and_way_out(own_cargo, tmp_path):
    for path in train_images(own_cargo):
        truncate(path, 40)
    code, _, error = train(*arguments(1, own_cargo, tmp_path / "run", "DATALOADER.NUM_WORKERS", "1"))
    assert code == 2
    (line,) = error.splitlines()
    assert line.startswith("error: cannot read image ")
    assert "CARGO/train" in line
    assert "DATALOADER.ON_BAD_IMAGE skip" in line


def test_only_training_images_can_be_trained_without(cfg, own_cargo):
    train_set = build_train_dataset(cfg)
    truncate(train_set.samples[0].path, 40)
    with pytest.raises(UserError, match=r"restore the file, or train without it: DATALOADER.ON_BAD_IMAGE sk"):
        train_set[Draw(0, 0)]
    with pytest.raises(UserError, match=r"restore the file$"):
        list(build_test_loader(cfg, train_set.samples[:1]))
    with pytest.raises(UserError, match="ON_BAD_IMAGE skip$"):
        list(build_test_loader(cfg, train_set.samples[:1], may_skip=True))


# --------------------------------- data that is too little
def test_identities_with_few_images_are_told_once_with_numbers(cfg, caplog):
    cfg.DATALOADER.NUM_INSTANCE = 16
    train_set = build_train_dataset(cfg)
    sizes = np.bincount([sample.pid for sample in train_set.samples])
    for _ in range(2):
        build_train_loader(cfg, train_set)
    said = f"{(sizes < 16).sum()} of {len(sizes)} identities have fewer than 16 images"
    assert caplog.text.count(said) == 1
    assert f"the fewest {sizes.min()}" in caplog.text


def test_a_protocol_without_one_of_its_views_is_explained_before_training(cfg, own_cargo):
    for camera in range(1, 6):  # the aerial ones
        for split in ("query", "gallery"):
            for path in (own_cargo / "CARGO" / split / f"Cam{camera}").glob("*.jpg"):
                path.unlink()
    said = r"^CARGO_AG: no query has .* another view .*\(aerial 0, ground \d+\).*DATASETS.TESTS"
    with pytest.raises(UserError, match=said):
        build_test_datasets(cfg)


# --------------------------------- odd files
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_8000_pixels_are_read(tmp_path, suffix):
    path = tmp_path / f"huge.{suffix}"
    Image.new("RGB", (8000, 2000), (200, 100, 50)).save(path)
    image = read_image(str(path), (64, 32))
    assert image.shape == ((3, 250, 1000) if suffix == "jpg" else (3, 2000, 8000))
    assert (image.float().mean((1, 2)) - torch.tensor([200.0, 100.0, 50.0])).abs().max() < 2


def test_training_takes_whatever_is_an_image(own_cargo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    odd = [("L", {}), ("CMYK", {}), ("RGB", {"exif": exif}), ("RGBA", {}), ("P", {}), ("LA", {}), ("1", {})]
    for number, path in enumerate(train_images(own_cargo)):
        mode, options = odd[number % len(odd)]
        size = [(1, 1), (8000, 8), (40, 90)][number % 3]
        kind = "JPEG" if mode in ("L", "CMYK", "RGB") else "PNG"  # a PNG under a JPEG's name, too
        Image.new(mode, size).save(path, kind, **options)
    assert train(*arguments(1, own_cargo, tmp_path / "run", "SOLVER.MAX_EPOCH", "1")).code == 0


# --------------------------------- workers
def test_a_killed_worker_ends_the_run_with_the_cause(own_cargo, tmp_path):
    options = ("DATALOADER.NUM_WORKERS", 2, "SOLVER.ITERS_PER_EPOCH", 100000)
    run = start(*arguments(1, own_cargo, tmp_path / "run", *options))
    read_until(run, "iter 2/")
    children = f"/proc/{run.pid}/task/{run.pid}/children"
    with open(children) as file:
        workers = [int(pid) for pid in file.read().split()]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    output = finish(run, expected=1)
    assert "worker" in output.splitlines()[-1]
    assert "killed" in output.splitlines()[-1].lower()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
    assert multiprocessing.active_children() == []
