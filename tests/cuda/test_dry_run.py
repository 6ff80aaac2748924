"""Every method's steps and evaluations on CUDA, as far as they can be known without it: see `dry_run`.

Shapes, dtypes and devices must agree, and the host may wait for the device only where `ALLOWED` says why:
once in ten training steps between two log lines, and never in a step of a diffusion scheduler but UniPC's.
Before there was this test the host waited once a step (float16: twice), once more for each draw of targets
across views, three times for each batch of generated features, twice a block of distances, and for every
BatchNorm layer of a batch of precise statistics.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from dry_run import CUDA, dry_run
from dry_steps import BATCH, assert_waits, batch, evaluate, meta_model, train
from torch import nn

from fastreid.engine import SimpleTrainer
from fastreid.engine.finite import LOOK_PERIOD
from fastreid.engine.hooks import LayerFreeze, PeriodicWriter
from fastreid.engine.hooks.precise_bn import update_statistics
from fastreid.evaluation import evaluate_features
from fastreid.modeling import META_ARCH_REGISTRY
from fastreid.modeling.losses import build


@pytest.mark.parametrize("method", META_ARCH_REGISTRY)
def test_a_method_trains_and_is_evaluated(method):
    with dry_run(meta_model(method)) as (model, waits):
        for amp in (None, torch.bfloat16, torch.float16):
            train(model, 1, amp)
        assert_waits(waits, {"finite.look": 3} | ({"generator.forward": 1} if "Stage2" in method else {}))
        evaluate(model, flip=True)
        evaluate(model, torch.bfloat16)
        assert_waits(waits, {"extraction.extract_features": 2})


def test_ten_training_steps_wait_once_between_two_log_lines():
    steps = LOOK_PERIOD + 1
    with dry_run(meta_model("SDReIDStage1")) as (model, waits):
        hooks = [PeriodicWriter(list, steps), LayerFreeze(model, ["backbone"], 3)]
        train(model, steps, torch.float16, hooks=hooks)
        assert_waits(waits, {"finite.look": 2, "events.latest": 8})


@pytest.fixture
def two_ranks(monkeypatch) -> Iterator[None]:
    """This process is the first of two that hear nothing of each other; DDP, which would, is left out."""
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    dist.init_process_group("fake", store=fake.FakeStore(), rank=0, world_size=2)
    monkeypatch.setattr(SimpleTrainer, "parallelize", lambda trainer: None)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("method", ["BoT", "SDReIDStage1"])  # BatchNorm; the memory bank
def test_what_ranks_share_in_a_step_stays_on_the_device(two_ranks, method):
    with dry_run(meta_model(method)) as (model, waits):
        train(model, 1, torch.bfloat16)
        assert_waits(waits, {"finite.look": 1, "signals._agreed": 2})


CLIPS = [("SGD", "norm"), ("Adam", "full_norm"), ("AdamW", "value")]


@pytest.mark.parametrize(("optimizer", "clip"), CLIPS)
def test_optimisers_and_clipping_do_not_wait(optimizer, clip):
    own = ["SOLVER.OPT", optimizer, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip]
    with dry_run(meta_model("ViTBaseline", *own)) as (model, waits):
        train(model, 2)
        assert_waits(waits, {"finite.look": 1})


def test_precise_statistics_take_no_wait():
    with dry_run(meta_model("BoT")) as (model, waits):
        update_statistics(model.train(), [batch()] * 2)
        assert_waits(waits, {})


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_features_on_the_device_are_ranked_in_blocks(metric):
    labels = [torch.arange(count).numpy() % modulus for modulus in (3, 2) for count in (4, 6)]
    with dry_run(lambda: nn.Linear(1, 1, device="meta")) as (_, waits):
        features = torch.zeros(4, 5, device=CUDA), torch.zeros(6, 5, device=CUDA)
        evaluate_features(*features, *labels, metric, block=(4, 3))
        once = {"features.__init__": 1, "features.rank_features": 1}
        assert_waits(waits, once | {"features.distance_blocks": 2})


# What a loss could do wrong with scores (B, C) and targets (B,), and what the dry run says of it.
REFUSED = {
    "a tensor made on the CPU": (lambda scores, targets: (targets == torch.arange(BATCH)).float(), "device"),
    "another dtype": (lambda scores, targets: scores.double() @ scores.T, "dtype"),
    "an array of a tensor": (lambda scores, targets: scores.numpy().mean(), "numpy"),
    "a choice by a mask": (lambda scores, targets: scores[targets > 0], "nonzero"),
}
COUNTED = {
    "a number read": lambda scores, targets: scores.mean().item(),
    "a condition": lambda scores, targets: 1.0 if scores.mean() > 0 else 0.0,
    "a blocking copy": lambda scores, targets: (targets == torch.arange(BATCH).to(CUDA)).float().mean(),
    "memory that is not pinned": lambda scores, targets: (
        (targets == torch.arange(BATCH).to(CUDA, non_blocking=True)).float().mean()
    ),
    "a list as an index": lambda scores, targets: scores[[0, 1]].mean(),
    "a draw by weights": lambda scores, targets: torch.multinomial(scores.softmax(1), 1).float().mean(),
}


def train_with(accuracy: Callable, monkeypatch) -> Counter[str]:
    monkeypatch.setattr(build, "accuracy", accuracy)
    with dry_run(meta_model("ViTBaseline")) as (model, waits):
        train(model, 1)
    return waits


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_planted_mistake_is_refused(mistake, monkeypatch):
    accuracy, said = REFUSED[mistake]
    with pytest.raises(Exception, match=said):
        train_with(accuracy, monkeypatch)


@pytest.mark.parametrize("mistake", COUNTED)
def test_a_planted_wait_is_counted_where_it_is(mistake, monkeypatch):
    assert train_with(COUNTED[mistake], monkeypatch) == {"finite.look": 1, "build.__call__": 1}
