"""Stage 2 of SD-ReID on a GPU that is not there: its trainings, its cached features, all ways to generate."""

import pytest
import torch
from dry_run import CUDA, dry_run
from dry_steps import assert_waits, config, evaluate, meta_model, pinned, train
from torch import nn

from fastreid.data import build_train_dataset
from fastreid.modeling import build_model
from fastreid.modeling.meta_arch.sdreid import feature_cache
from fastreid.modeling.meta_arch.sdreid.sampler import Sampler
from fastreid.modeling.meta_arch.sdreid.scheduler_names import DIFFUSION_SCHEDULER_REGISTRY
from fastreid.modeling.meta_arch.sdreid.schedulers import schedule_settings

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


KINDS = ("epsilon", "sample", "v_prediction")


@pytest.mark.parametrize("kind", KINDS)
def test_no_scheduler_but_unipc_waits_in_a_sampling_step(kind):
    settings = schedule_settings(config("SDReIDStage2")) | {"prediction_type": kind}
    names = set(DIFFUSION_SCHEDULER_REGISTRY) - ({"pndm"} if kind == "sample" else set())  # it cannot
    with dry_run(lambda: nn.Conv2d(4, 4, 1, device="meta")) as (predict, waits):
        for name in sorted(names):
            sampler = Sampler(name, settings, 3)
            noise = torch.zeros(sampler.draws, 2, 4, 8, 4, device=CUDA)
            latents = sampler(noise, lambda inputs, timestep, _: predict(inputs) * timestep.float())
            assert (latents.device, latents.dtype, latents.shape) == (CUDA, torch.float32, noise.shape[1:])
            assert bool(waits) == (name == "unipc"), name
            waits.clear()


def test_every_guidance_noise_and_prediction_generates_without_a_wait():
    with dry_run(meta_model("SDReIDStage2", "MODEL.SDMODEL.VIEW_NUM", "2")) as (model, waits):
        generator, tokens = model.generator, torch.zeros(2, model.backbone.num_id_tokens, 128, device=CUDA)
        generate = lambda views: generator.generate(tokens, model.memory_bank.prototypes, "ab", views)  # noqa: E731
        for generator.guidance_scale, generator.per_image_noise in ((0.0, False), (1.0, True), (2.0, True)):
            assert generate([1]).shape == (2, 1, 128)
        assert generate(None).shape == (2, 2, 128)
        generator.prediction = "mean"
        for kind in KINDS:
            generator.noise_scheduler.register_to_config(prediction_type=kind)
            assert generate([1, 0]).device == CUDA
        assert_waits(waits, {})


def test_a_generator_that_trained_on_the_device_predicts_the_mean_on_the_cpu():
    model = build_model(config("SDReIDStage2", "TEST.SDMODEL.PREDICTION", "mean"))
    scheduler, tokens = model.generator.noise_scheduler, torch.zeros(2, model.backbone.num_id_tokens, 128)
    with dry_run(lambda: nn.Linear(1, 1, device="meta")):
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(CUDA)  # as diffusers does in training
        generated = model.generator.generate(tokens, model.memory_bank.prototypes, "ab")
    assert generated.device.type == "cpu"


@pytest.mark.parametrize(("capability", "enabled"), [((8, 0), True), ((7, 5), False)])
def test_a_gpu_that_only_emulates_bf16_generates_in_float32(monkeypatch, caplog, capability, enabled):
    with dry_run(meta_model("SDReIDStage2")) as (model, _):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        with model.generation_precision():
            assert torch.is_autocast_enabled("cuda") is enabled
    assert ("only emulates bf16" in caplog.text) is not enabled


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
            # three outputs of the images and of their mirror images, and the images, which the CPU's loader
            # has not pinned
            assert_waits(waits, {"feature_cache.encode_images": 7})
            train(model, 2, batches=map(pinned, make_loader(0)))
        assert_waits(waits, {"finite.look": 1, "generator.forward": 1})
