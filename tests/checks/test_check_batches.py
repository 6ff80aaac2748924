"""What the numbers of batches and schedule come to."""

from types import SimpleNamespace

import pytest

from fastreid.checks import check_batches
from fastreid.config import get_cfg
from fastreid.data import Sample


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.SOLVER.IMS_PER_BATCH = 8
    cfg.SOLVER.MAX_EPOCH = 10
    cfg.SOLVER.WARMUP_ITERS = 5
    return cfg


def people(count: int = 10, images: int = 4, views: int = 2) -> SimpleNamespace:
    """A training set of `count` identities with `images` images each, spread over `views` of two views."""
    samples = [
        Sample(f"{pid}_{index}.jpg", pid, 0, index % views) for pid in range(count) for index in range(images)
    ]
    return SimpleNamespace(samples=samples, num_views=2)


def warnings_of(findings) -> list[str]:
    return [
        f"{finding.check}: {finding.found} | {finding.fix}"
        for finding in findings
        if finding.level == "warning"
    ]


def test_good_numbers(cfg, said):
    findings = check_batches(cfg, people())
    assert [finding.level for finding in findings] == ["ok"] * 3
    assert "8 images = 2 of 10 identities x 4" in said(findings, "ok", "batches")
    # 40 images // 8 = 5 an epoch, x 10 epochs = 50
    assert "5 iterations an epoch, 50 in 10 epochs; warm-up 5 iterations, 1.0 epochs" in said(
        findings, "ok", "schedule"
    )
    assert "10 of 10 identities are seen in all 2 views, 0 in one" in said(
        findings, "ok", "views of an identity"
    )


def test_processes_share_a_batch(cfg, said):
    assert "4 for each of 2 processes" in said(check_batches(cfg, people(), world_size=2), "ok", "batches")


def test_iterations_of_an_epoch_may_be_set(cfg, said):
    cfg.SOLVER.ITERS_PER_EPOCH = 7
    assert "7 iterations an epoch, 70 in 10" in said(check_batches(cfg, people()), "ok", "schedule")


@pytest.mark.parametrize(("warmup", "warned"), [(45, False), (50, True), (2000, True)])
def test_a_warm_up_as_long_as_the_run(cfg, warmup, warned):
    cfg.SOLVER.WARMUP_ITERS = warmup
    found = warnings_of(check_batches(cfg, people()))
    assert bool(found) is warned
    if warned:
        assert "as long as the run of 50" in found[0]
        assert found[0].endswith("| SOLVER.WARMUP_ITERS 5")


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"SCHED": "MultiStepLR", "STEPS": [9, 50]}, False),
        ({"SCHED": "MultiStepLR", "STEPS": [10, 50]}, True),
        ({"SCHED": "CosineAnnealingLR", "DELAY_EPOCHS": 8}, False),
        ({"SCHED": "CosineAnnealingLR", "DELAY_EPOCHS": 9}, True),
    ],
)
def test_a_learning_rate_that_never_falls(cfg, settings, warned):
    cfg.SOLVER.merge_values(settings, "test")
    assert ["never falls" in text for text in warnings_of(check_batches(cfg, people()))] == [True] * warned


def test_layers_that_stay_frozen_for_the_whole_run(cfg):
    cfg.MODEL.FREEZE_LAYERS = ["backbone"]
    cfg.SOLVER.FREEZE_ITERS = 50
    (text,) = warnings_of(check_batches(cfg, people()))
    assert "['backbone'] never train" in text
    cfg.SOLVER.FREEZE_ITERS = 49
    assert warnings_of(check_batches(cfg, people())) == []


def test_fewer_identities_than_a_batch_needs(cfg, said):
    cfg.SOLVER.IMS_PER_BATCH = 48
    findings = check_batches(cfg, people())
    assert "a batch needs 12 identities" in said(findings, "error", "batches")
    assert "| set SOLVER.IMS_PER_BATCH to 40 or less" in said(findings, "error", "batches")
    assert "identities are seen" in said(findings, "ok", "views of an identity")


def test_identities_with_few_images(cfg):
    (text,) = warnings_of(check_batches(cfg, people(images=3)))
    assert "10 of 10 identities have fewer than 4 images" in text


def test_fewer_images_than_a_batch(cfg):
    texts = warnings_of(check_batches(cfg, people(count=2, images=2)))
    assert any("4 training images do not fill a batch of 8" in text for text in texts)


def test_one_image_for_each_process(cfg, said):
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    cfg.MODEL.LOSSES.NAME = ["CrossEntropyLoss"]
    assert "batch norm needs two" in said(check_batches(cfg, people(), world_size=8), "error", "batches")
    cfg.use_method("SDReIDStage2")  # its batch norm is frozen
    assert [f.level for f in check_batches(cfg, people(), world_size=8)] == ["ok"] * 3


@pytest.mark.parametrize(
    ("sampler", "instances", "batch", "expected"),
    [
        ("TrainingSampler", 4, 8, "TrainingSampler draws images one by one"),
        ("NaiveIdentitySampler", 1, 8, "no positive pair"),
        ("NaiveIdentitySampler", 4, 4, "no negative pair"),
        ("AGSampler", 2, 4, None),
    ],
)
def test_batches_in_which_the_triplet_loss_finds_nothing(cfg, sampler, instances, batch, expected):
    cfg.DATALOADER.SAMPLER_TRAIN = sampler
    cfg.DATALOADER.NUM_INSTANCE = instances
    cfg.SOLVER.IMS_PER_BATCH = batch
    found = warnings_of(check_batches(cfg, people()))
    assert [expected in text for text in found] == ([True] if expected else [])
    cfg.MODEL.LOSSES.NAME = ["CrossEntropyLoss"]
    assert warnings_of(check_batches(cfg, people())) == []


def test_identities_seen_in_one_view_alone(cfg):
    (text,) = warnings_of(check_batches(cfg, people(views=1)))
    assert "0 of 10 identities are seen in all 2 views, 10 in one alone" in text
    half = people(views=1)
    half.samples[: 4 * 5] = people(count=5).samples
    assert warnings_of(check_batches(cfg, half)) == []


def test_an_unknown_sampler(cfg, said):
    cfg.DATALOADER.SAMPLER_TRAIN = "Naive"
    assert "NaiveIdentitySampler" in said(check_batches(cfg, people()), "error", "batches")


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({}, True),
        ({"BACKBONE": {"PRETRAIN": True}}, False),
        ({"WEIGHTS": "some.pth"}, False),
        ({"LOSSES": {"TRI": {"MARGIN": 0.3}}}, False),
        ({"META_ARCHITECTURE": "SDReIDStage2"}, False),
    ],
)
def test_the_soft_margin_from_random_weights(cfg, settings, warned):
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.MODEL.merge_values(settings, "test")
    assert ["0.69" in text for text in warnings_of(check_batches(cfg, people()))] == [True] * warned
    cfg.MODEL.BACKBONE.CONV_STEM = True
    cfg.SOLVER.OPT = "AdamW"
    assert warnings_of(check_batches(cfg, people())) == []
