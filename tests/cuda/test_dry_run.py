"""Every method's steps and evaluations on CUDA, as far as they can be known without it: see `dry_run`.

Shapes, dtypes and devices must agree, and the host may wait for the device only where `ALLOWED` says why:
once in ten training steps between two log lines, and never in a step of a diffusion scheduler but UniPC's.
Before there was this test the host waited once a step (float16: twice), once more for each draw of targets
across views, three times for each batch of generated features, twice a block of distances, and for every
BatchNorm layer of a batch of precise statistics.
"""

from collections import Counter
from collections.abc import Callable, Iterable

import pytest
import torch
from dry_run import CUDA, dry_run, why_impossible
from torch import nn
from worlds.options import ANY_METHOD, OWN

from fastreid.config import CfgNode, load_config
from fastreid.data import build_train_dataset
from fastreid.engine import SimpleTrainer
from fastreid.engine.finite import LOOK_PERIOD
from fastreid.engine.hooks import LRScheduler, StopOnSignal
from fastreid.engine.hooks.precise_bn import update_statistics
from fastreid.evaluation import evaluate_features
from fastreid.evaluation.extraction import extract_features
from fastreid.modeling import META_ARCH_REGISTRY, MetaArch, build_meta_model, fit_config
from fastreid.modeling.losses import build
from fastreid.modeling.meta_arch.sdreid import feature_cache
from fastreid.modeling.meta_arch.sdreid.sampler import Sampler
from fastreid.modeling.meta_arch.sdreid.scheduler_names import DIFFUSION_SCHEDULER_REGISTRY
from fastreid.modeling.meta_arch.sdreid.schedulers import schedule_settings
from fastreid.solver import build_gradient_clipper, build_lr_scheduler, build_optimizer
from fastreid.structures import Batch, DataNames

NAMES = DataNames(tuple("abcd"), {number: f"Cam{number}" for number in range(4)}, ("aerial", "ground"))
LAYERS = ["MODEL.BACKBONE.NUM_LAYERS", "2"]
UNET = ["TEST.SDMODEL.NUM_INFERENCE_STEPS", "1"]
UNET += ["MODEL.SDMODEL.UNET_CONFIG.WIDTHS", "[32]", "MODEL.SDMODEL.UNET_CONFIG.TRAINABLE_BLOCK_IDX", "[0]"]
SMALLER = {"SDReIDStage2": UNET, "SDReIDStage2AsReleased": UNET}
SMALLER["ViSA"] = ["MODEL.BACKBONE.EXPERTS", "2", "MODEL.BACKBONE.GRAPH_TOP_K", "2"]
BATCH = 8

# Where the host may wait for the device, and why.
ALLOWED = {
    "finite.look": "a training that has diverged must end: every ten steps, and before anything is written",
    "generator.forward": "diffusers brings the noise schedule to the device, once",
    "extraction.extract_features": "a batch's features, which are ranked later",
    "feature_cache.encode_images": "a batch's encoder outputs, which become files",
    "features.__init__": "the gallery, whose near ties the CPU computes again in float64",
    "features.rank_features": "a block of queries, likewise",
    "features.distance_blocks": "a block of distances, which the CPU counts",
    "sampler.__call__": "UniPC solves small systems on the device",
}


@pytest.fixture(autouse=True, scope="module")
def possible() -> None:
    """Another version of torch may have other private parts."""
    if why := why_impossible():
        pytest.skip(why)


def assert_waits(waits: Counter[str], expected: dict[str, int]) -> None:
    """Check what the host has waited for since the last time."""
    assert waits == expected
    assert expected.keys() <= ALLOWED.keys()
    waits.clear()


def config(method: str, *more: str) -> CfgNode:
    """Return a method's configuration with networks as small as they get."""
    own = [*OWN.get(method, []), *LAYERS, *SMALLER.get(method, [])]
    cfg = load_config("", [*ANY_METHOD, "MODEL.META_ARCHITECTURE", method, *own, *more])
    return fit_config(cfg, len(NAMES.identities), NAMES.views)


def meta_model(method: str, *more: str) -> Callable[[], MetaArch]:
    return lambda: build_meta_model(config(method, "MODEL.DEVICE", "cuda:0", *more), NAMES)


def batch() -> Batch:
    """A batch as loaders make it: on the CPU."""
    numbers = torch.arange(BATCH)
    images = torch.zeros(BATCH, 3, 64, 32, dtype=torch.uint8)
    labels = {"targets": numbers // 2, "camids": numbers % 4, "viewids": numbers % 2}
    return {"images": images, "img_paths": [f"{number}.jpg" for number in range(BATCH)], **labels}


class Batches(list):
    """Batches of a loader."""

    @property
    def dataset(self) -> range:
        return range(BATCH * len(self))


def train(
    model: MetaArch, steps: int, amp: torch.dtype | None = None, batches: Iterable[Batch] | None = None
) -> None:
    """Take steps as one epoch, with the hooks that act in every one."""
    optimizer = build_optimizer(model.cfg, model)
    clip = build_gradient_clipper(model.cfg)
    make_loader = lambda start: batches or [batch()] * steps  # noqa: E731
    trainer = SimpleTrainer(model, optimizer, make_loader, 1, steps, amp_dtype=amp, clip=clip)
    trainer.register_hooks([LRScheduler(build_lr_scheduler(model.cfg, optimizer, steps)), StopOnSignal()])
    trainer.train()


def evaluate(model: MetaArch, amp: torch.dtype | None = None, flip: bool = False) -> None:
    model.on_evaluation_start()
    features = extract_features(model, Batches([batch()]), flip, amp)
    assert (features.device.type, features.dtype) == ("cpu", torch.float32)
    assert features.shape == (BATCH, sum(model.feature_parts().values()))


@pytest.mark.parametrize("method", META_ARCH_REGISTRY)
def test_a_method_trains_and_is_evaluated(method):
    with dry_run(meta_model(method)) as (model, waits):
        for amp in (None, torch.bfloat16, torch.float16):
            train(model, 1, amp)
        assert_waits(waits, {"finite.look": 3} | ({"generator.forward": 1} if "Stage2" in method else {}))
        evaluate(model, flip=True)
        evaluate(model, torch.bfloat16)
        assert_waits(waits, {"extraction.extract_features": 2})


def test_ten_training_steps_wait_once():
    with dry_run(meta_model("SDReIDStage1")) as (model, waits):
        train(model, LOOK_PERIOD, torch.float16)
        assert_waits(waits, {"finite.look": 1})


CLIPS = [("SGD", "norm"), ("Adam", "full_norm"), ("AdamW", "value")]


@pytest.mark.parametrize(("optimizer", "clip"), CLIPS)
def test_optimisers_and_clipping_do_not_wait(optimizer, clip):
    own = ["SOLVER.OPT", optimizer, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip]
    with dry_run(meta_model("ViTBaseline", *own)) as (model, waits):
        train(model, 2)
        assert_waits(waits, {"finite.look": 1})


STAGE2 = {
    "cross_view": [
        "TOKEN_MIXING",
        "0.3",
        "TOKEN_DROPOUT",
        "0.3",
        "VIEW_MAP",
        "mixed",
        "VIEW_SEPARATION",
        "0.1",
    ],
    "identity_mean": ["PREDICTION_TYPE", "v_prediction", "GRADIENT_CHECKPOINTING", "True"],
}


@pytest.mark.parametrize("target", STAGE2)
def test_targets_across_views_are_drawn_without_a_wait(target):
    own = [
        f"MODEL.SDMODEL.{word}" if word.isupper() else word for word in ("TARGET", target, *STAGE2[target])
    ]
    with dry_run(meta_model("SDReIDStage2", *own)) as (model, waits):
        train(model, 1)
        assert_waits(waits, {"finite.look": 1, "generator.forward": 1})


def test_no_scheduler_but_unipc_waits_in_a_sampling_step():
    with dry_run(meta_model("SDReIDStage2", "MODEL.SDMODEL.VIEW_NUM", "2")) as (model, waits):
        generator, tokens = model.generator, torch.zeros(2, model.backbone.num_id_tokens, 128, device=CUDA)
        generate = lambda *views: generator.generate(tokens, model.memory_bank.prototypes, "ab", *views)  # noqa: E731
        for name in DIFFUSION_SCHEDULER_REGISTRY:
            generator.sampler = Sampler(name, schedule_settings(model.cfg), 2)
            assert generate().shape == (2, 2, 128)
            assert bool(waits) == (name == "unipc"), name
            waits.clear()
        generator.sampler = Sampler("ddpm", schedule_settings(model.cfg), 2)
        for generator.guidance_scale, generator.per_image_noise in ((0.0, False), (1.0, True), (2.0, True)):
            assert generate([1]).shape == (2, 1, 128)
        generator.prediction = "mean"
        assert generate([1, 0]).device == CUDA
        assert_waits(waits, {})


def test_the_person_feature_may_stand_in_for_its_own_view():
    own = ["TEST.SDMODEL.REAL_OWN_VIEW", "True", "TEST.SDMODEL.FUSION", "weighted"]
    with dry_run(meta_model("SDReIDStage2", *own, "TEST.SDMODEL.PREDICTION", "mean")) as (model, waits):
        evaluate(model)
        assert_waits(waits, {"extraction.extract_features": 1})


def test_features_are_cached_and_trained_on(noise_cargo):
    places = [
        "DATASETS.NAMES",
        "['CARGO']",
        "DATASETS.ROOT",
        str(noise_cargo),
        "OUTPUT_DIR",
        str(noise_cargo),
    ]
    cfg = config("SDReIDStage2", *places, "INPUT.FLIP.ENABLED", "True", "MODEL.HEADS.NUM_CLASSES", "6")
    with dry_run(meta_model("SDReIDStage2")) as (model, waits):
        with feature_cache.cached_batches(cfg, model, build_train_dataset(cfg)) as make_loader:
            assert_waits(waits, {"feature_cache.encode_images": 6})
            train(model, 2, batches=make_loader(0))
        assert_waits(waits, {"finite.look": 1, "generator.forward": 1})


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
