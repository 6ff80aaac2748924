"""MODEL.SDMODEL.CACHE_FEATURES: the same training from features that are encoded once."""

import itertools
import json
import threading

import numpy as np
import pytest
import torch
from worlds.options import tiny_cfg

from fastreid.config import check_config
from fastreid.data import Draw, build_train_dataset
from fastreid.data.transforms import mirror_decisions
from fastreid.engine import DefaultTrainer
from fastreid.modeling import build_model, fit_config
from fastreid.modeling.meta_arch.sdreid import feature_cache
from fastreid.utils.errors import UserError


@pytest.fixture
def stage2_cfg(noise_cargo, tmp_path):
    """A tiny Stage 2, with the Stage-1 checkpoint that it starts from."""
    off = ("INPUT.PADDING.ENABLED", "False", "INPUT.REA.ENABLED", "False", "SOLVER.ITERS_PER_EPOCH", "3")
    cfg = tiny_cfg(tmp_path, *off, "SOLVER.OPT", "Adam", "TEST.EVAL_PERIOD", "0")
    cfg.MODEL.WEIGHTS = str(tmp_path / "stage1.pth")
    torch.manual_seed(0)
    stage1 = build_model(fit_config(cfg, 6, ("aerial", "ground")))
    stage1.memory_bank.update(torch.randn(4, 128), torch.arange(4) % 2)
    meta = {"method": "SDReIDStage1", "num_classes": 6}
    torch.save({"model": stage1.state_dict(), "meta": meta}, cfg.MODEL.WEIGHTS)
    cfg.use_method("SDReIDStage2")
    return cfg


def losses_of(cfg, folder, resume=False, **changes) -> list[float]:
    cfg = cfg.clone()
    cfg.merge_values({"OUTPUT_DIR": str(folder)} | changes, source="test")
    check_config(cfg)
    torch.manual_seed(1)
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    lines = (folder / "metrics.json").read_text().splitlines()
    return [loss for line in lines if (loss := json.loads(line).get("loss_noise")) is not None]


@pytest.mark.parametrize("target", ["same_image", "cross_view", "identity_mean"])
def test_the_losses_are_those_of_training_from_images(stage2_cfg, tmp_path, target):
    changes = {"MODEL": {"SDMODEL": {"TARGET": target}}}
    images = losses_of(stage2_cfg, tmp_path / "images", **changes)
    changes["MODEL"]["SDMODEL"]["CACHE_FEATURES"] = True
    cached = losses_of(stage2_cfg, tmp_path / "cached", **changes)
    assert len(images) == 6
    assert cached == pytest.approx(images, rel=1e-5)


@pytest.mark.parametrize("target", ["same_image", "identity_mean"])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(stage2_cfg, tmp_path, target):
    settings = {"CACHE_FEATURES": True, "TARGET": target}
    stage2_cfg.merge_values(
        {"MODEL": {"SDMODEL": settings}, "SOLVER": {"SCHED": "MultiStepLR"}}, source="test"
    )
    whole = losses_of(stage2_cfg, tmp_path / "whole")
    losses_of(stage2_cfg, tmp_path / "parts", SOLVER={"MAX_EPOCH": 1})
    parts = losses_of(stage2_cfg, tmp_path / "parts", resume=True)
    assert parts == pytest.approx(whole, rel=1e-6)


def test_every_image_is_encoded_twice_and_then_no_more(stage2_cfg, tmp_path):
    stage2_cfg.MODEL.SDMODEL.CACHE_FEATURES = True
    stage2_cfg.DATASETS.TESTS = ["CARGO_AG"]
    trainer = DefaultTrainer(stage2_cfg)
    trainer.resume_or_load()
    encoded = []
    trainer.model.backbone.register_forward_hook(lambda module, args, output: encoded.append(len(args[0])))
    with feature_cache.cached_batches(stage2_cfg, trainer.model, trainer.train_set) as make_loader:
        batches = iter(make_loader(0))
        for _ in range(4):
            trainer.model.train()(next(batches))
    assert sum(encoded) == 2 * len(trainer.train_set)


def test_the_features_are_those_of_the_drawn_images(stage2_cfg):
    trainer = DefaultTrainer(stage2_cfg)
    trainer.resume_or_load()
    model = trainer.model.eval()
    with feature_cache.cached_batches(stage2_cfg, model, trainer.train_set) as make_loader:
        for number, (encoded, images) in enumerate(zip(make_loader(2), trainer.make_loader(2), strict=False)):
            with torch.no_grad():
                expected = model.encode(images)
            for name, value in expected._asdict().items():
                torch.testing.assert_close(encoded[name], value, atol=1e-5, rtol=1e-5)
            for name in ("targets", "camids", "viewids"):
                assert torch.equal(encoded[name], images[name])
            if number == 3:
                break


def test_the_flip_is_the_decision_of_the_training_transform(stage2_cfg):
    train_set = build_train_dataset(stage2_cfg)
    plain = stage2_cfg.clone()
    plain.INPUT.FLIP.ENABLED = False
    image = build_train_dataset(plain)[Draw(0, 0)]["images"]
    state = torch.get_rng_state()
    decisions = mirror_decisions(stage2_cfg, range(40)).tolist()
    assert torch.equal(torch.get_rng_state(), state)  # another thread decides
    for number, mirrored in enumerate(decisions):
        assert torch.equal(train_set[Draw(0, number)]["images"], image.flip(2) if mirrored else image)
    assert 10 < sum(decisions) < 30
    assert not mirror_decisions(plain, range(40)).any()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"INPUT": {"PADDING": {"ENABLED": True}}}, "INPUT.PADDING.ENABLED"),
        ({"INPUT": {"REA": {"ENABLED": True}}}, "INPUT.REA.ENABLED"),
        ({"INPUT": {"CJ": {"ENABLED": True}}}, "INPUT.CJ.ENABLED"),
        ({"MODEL": {"META_ARCHITECTURE": "SDReIDStage1"}}, "SDReIDStage1"),
        ({"DATALOADER": {"ON_BAD_IMAGE": "skip"}}, "ON_BAD_IMAGE"),
    ],
)
def test_what_changes_an_image_between_epochs_is_refused(stage2_cfg, changes, named):
    stage2_cfg.MODEL.SDMODEL.CACHE_FEATURES = True
    check_config(stage2_cfg)
    stage2_cfg.merge_values(changes, source="test")
    with pytest.raises(UserError, match=f"CACHE_FEATURES.*{named}") as caught:
        check_config(stage2_cfg)
    assert "\n" not in str(caught.value)
    check_config(stage2_cfg, training=False)  # evaluation reads no cache


def test_a_disk_that_is_too_small_is_named_before_anything_is_encoded(stage2_cfg, monkeypatch, tmp_path):
    trainer = DefaultTrainer(stage2_cfg)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda folder: usage)
    with (
        pytest.raises(UserError, match="CACHE_FEATURES needs .* GB for 48 encoded images"),
        feature_cache.cached_batches(stage2_cfg, trainer.model, trainer.train_set),
    ):
        pass


def test_a_run_removes_what_a_killed_one_left(stage2_cfg, tmp_path):
    stage2_cfg.MODEL.SDMODEL.CACHE_FEATURES = False
    left = tmp_path / "run" / feature_cache.FOLDER / "features.npy"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left by a killed run")
    DefaultTrainer(stage2_cfg).train()
    assert not left.parent.exists()


def test_the_files_are_removed_however_training_ends(stage2_cfg, tmp_path):
    trainer = DefaultTrainer(stage2_cfg)
    folder = tmp_path / "run" / feature_cache.FOLDER

    def interrupted() -> None:
        with feature_cache.cached_batches(stage2_cfg, trainer.model, trainer.train_set):
            assert len(list(folder.glob("*.npy"))) == 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not folder.exists()


def test_batches_are_rows_of_the_files_in_the_samplers_order_and_the_reading_ends(stage2_cfg, tmp_path):
    trainer = DefaultTrainer(stage2_cfg)
    draws = iter(trainer.make_loader(1).batch_sampler)
    threads = threading.active_count()
    with feature_cache.cached_batches(stage2_cfg, trainer.model, trainer.train_set) as make_loader:
        files = {path.stem: np.load(path) for path in (tmp_path / "run" / feature_cache.FOLDER).glob("*.npy")}
        batches = iter(make_loader(1))
        for drawn, batch in zip(itertools.islice(draws, 4), batches, strict=False):
            rows = [draw.index for draw in drawn]
            sides = mirror_decisions(stage2_cfg, [draw.number for draw in drawn]).long().numpy()
            for name, file in files.items():
                assert np.array_equal(batch[name].numpy(), file[rows, sides])
            samples = [trainer.train_set.samples[row] for row in rows]
            assert batch["img_paths"] == [sample.path for sample in samples]
            assert batch["targets"].tolist() == [sample.pid for sample in samples]
        assert threading.active_count() == threads + 1
        batches.close()
        assert threading.active_count() == threads


@pytest.mark.cuda
def test_batches_for_a_gpu_are_in_pinned_memory(stage2_cfg):
    stage2_cfg.MODEL.DEVICE = "cuda"
    trainer = DefaultTrainer(stage2_cfg)
    with feature_cache.cached_batches(stage2_cfg, trainer.model, trainer.train_set) as make_loader:
        batch = next(iter(make_loader(0)))
    tensors = [value for value in batch.values() if torch.is_tensor(value)]
    assert len(tensors) == 6
    assert all(tensor.is_pinned() for tensor in tensors)
