"""The as-released variant: each of its seven behaviours, and all together, against plain computations."""

import copy
import logging
import re

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from PIL import Image
from release_files import CLOSE, DIM, HEIGHT, WIDTH, encode, learn_conditions, stage2_file
from torch import Tensor, nn
from worlds.programs import run_tool

from fastreid.config import check_config
from fastreid.modeling import build_model
from fastreid.modeling.meta_arch.sdreid.schedulers import SD_V1_5
from fastreid.utils.errors import UserError

SEED, STEPS, TRAIN_STEP = 1111, 5, 1000


def released_features(names: dict, unet: nn.Module, images: Tensor, noise: torch.Generator) -> Tensor:
    """The release's evaluation of one batch, written down step by step."""
    person, _, id_tokens = encode(names, images)
    batch, parts = len(images), [person]
    starts = [torch.randn(batch, 4, 8, 4, generator=noise) for _ in range(2)]
    for view, latents in enumerate(starts):
        center = names[f"mm.view_centers.{view}"].expand(batch, DIM)
        tokens = torch.cat([id_tokens, center[:, None]], dim=1)
        context = learn_conditions(names, tokens, layers=2, batch_first=False)
        residuals = []
        for index in range(6):
            weights = [names[f"condition_learner.downsamplers.{index}.{kind}"] for kind in ("weight", "bias")]
            maps = F.conv2d(center.reshape(batch, 1, 16, 8), *weights, (2, 4, 8)[index % 3])
            residuals.append(torch.cat([maps, maps]))
        scheduler = DDPMScheduler.from_config(SD_V1_5 | {"num_train_timesteps": TRAIN_STEP})
        scheduler.set_timesteps(STEPS)
        for timestep in scheduler.timesteps:
            residuals = residuals[: len(residuals) // 2]  # the other half is looked up by names: no effect
            predicted = unet(
                torch.cat([latents, latents]),
                timestep,
                encoder_hidden_states=torch.cat([torch.zeros_like(context), context]),
                down_intrablock_additional_residuals=list(residuals),
            ).sample
            unconditional, conditional = predicted.chunk(2)
            guided = unconditional + 2.0 * (conditional - unconditional)
            latents = scheduler.step(guided, timestep, latents, generator=noise).prev_sample
        parts.append(latents.flatten(1))
    return torch.cat(parts, dim=1)


@pytest.fixture
def as_released(tiny_cfg, randomize):
    """`as_released(views, "KEY", value, …)`: the variant, all of it random, in eval mode."""

    def build(views: int = 2, *options):
        cfg = tiny_cfg(views, *options)
        cfg.MODEL.META_ARCHITECTURE = "SDReIDStage2AsReleased"
        model = build_model(cfg).eval()
        randomize(model)
        model.memory_bank.prototypes.normal_(generator=torch.Generator().manual_seed(5))
        return model

    return build


def calls_of(unet: nn.Module) -> list[dict]:
    """The keyword arguments of each call from now on."""
    calls = []
    # diffusers takes the levels out of the list that it is given
    unet.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append({k: copy.copy(v) for k, v in kwargs.items()}), with_kwargs=True
    )
    return calls


def fresh(model: nn.Module, batch: dict) -> Tensor:
    """The features of the first batch of an evaluation."""
    model.on_evaluation_start()
    return model(batch)


@torch.no_grad()
def test_a_converted_checkpoint_with_its_yaml_gives_the_features_of_the_releases_code(convert, converted):
    names, unet = stage2_file()
    code, printed = convert({"model": dict(names)}, "Baseline_stage2_old_3view_2")
    assert code == 0, printed
    model = converted()
    assert type(model).__name__ == "SDReIDStage2AsReleased"
    noise = torch.Generator().manual_seed(SEED)
    model.on_evaluation_start()
    for size in (3, 5):  # two batches of one evaluation
        images = torch.randint(0, 256, (size, 3, HEIGHT, WIDTH), dtype=torch.uint8)
        expected = released_features(names, unet, images, noise)
        found = model({"images": images, "img_paths": [f"{n}.jpg" for n in range(size)]})
        torch.testing.assert_close(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-4)


@torch.no_grad()
def test_with_our_configuration_it_gives_the_described_ones(convert, converted):
    names, _ = stage2_file()
    code, printed = convert({"model": dict(names)}, "SDReIDStage2")
    assert code == 0
    assert "caution: the release never trained condition_learner.downsamplers.3 to 5" in printed
    model = converted()
    assert type(model).__name__ == "SDReIDStage2"
    images = torch.randint(0, 256, (3, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    found = model({"images": images, "img_paths": ["a", "b", "c"]})
    assert found.shape == (3, 4 * DIM)  # all three views
    alone = model({"images": images[1:2], "img_paths": ["b"]})  # no batch-mates, the same noise
    torch.testing.assert_close(alone[0], found[1], atol=1e-4 * found.abs().max().item(), rtol=1e-4)
    for part in (
        model.generator.view_refined_decoder.decoder[0].weight,
        model.generator.condition_learner.null_context,
    ):
        part.add_(1)
        changed = model({"images": images, "img_paths": ["a", "b", "c"]})
        assert (changed - found)[:, DIM:].abs().max() > 1e-3
        part.sub_(1)


class TestSevenPoints:
    @torch.no_grad()
    def test_1_conditions_attend_across_the_batch_at_each_position(self, as_released):
        learner = as_released().generator.condition_learner
        id_tokens, prototypes = torch.randn(5, 3, DIM), torch.randn(5, DIM)
        context = learner(id_tokens, prototypes)
        tokens = torch.cat([id_tokens, prototypes[:, None]], dim=1)
        for position in range(4):
            sequence = tokens[:, position]  # the images of the batch, as a sentence
            alone = learner.transformer(inputs_embeds=sequence[None]).last_hidden_state[0]
            torch.testing.assert_close(context[:, position], alone, **CLOSE)
        described = learner.transformer(inputs_embeds=tokens).last_hidden_state
        assert (context - described).abs().max() > 1e-3

    def test_1_a_feature_depends_on_its_batch_mates(self, as_released, make_batch):
        model, batch = as_released(), make_batch(2, 4)
        other = {**batch, "images": torch.cat([batch["images"][:2], batch["images"][:2]])}
        before, after = fresh(model, batch)[:2], fresh(model, other)[:2]
        torch.testing.assert_close(before[:, :DIM], after[:, :DIM])  # the person's
        assert (before - after).abs().max() > 1e-4

    def test_2_residuals_of_the_decoder_have_no_effect_and_do_not_train(self, as_released, make_batch):
        model, batch = as_released(), make_batch(2, 4)
        before, calls = fresh(model, batch), calls_of(model.generator.unet)
        decoder = model.generator.view_refined_decoder.decoder
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.add_(1)
        assert torch.equal(fresh(model, batch), before)
        sum(model.train()(batch).values()).backward()
        assert all(parameter.grad is None for parameter in decoder.parameters())
        assert all(call["down_block_additional_residuals"] is None for call in calls)
        trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert trained == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert any("view_refined_decoder.encoder" in name for name in trained)

    def test_3_residuals_of_the_encoder_are_halved_at_every_step(self, as_released, make_batch):
        model = as_released(2, "TEST.SDMODEL.NUM_INFERENCE_STEPS", "4")
        calls = calls_of(model.generator.unet)
        model(make_batch(2, 3))
        levels = [call["down_intrablock_additional_residuals"] for call in calls]
        assert [len(kept) for kept in levels] == [3, 1, 0, 0] * 2
        assert torch.equal(levels[0][0], levels[1][0])  # the finest stays

    def test_4_the_unconditional_branch_has_a_context_of_zeros(self, as_released, make_batch):
        model, batch = as_released(), make_batch(2, 3)
        before, calls = fresh(model, batch), calls_of(model.generator.unet)
        with torch.no_grad():
            model.generator.condition_learner.null_context.add_(1)
        assert torch.equal(fresh(model, batch), before)
        for call in calls:
            unconditional, conditional = call["encoder_hidden_states"].chunk(2)
            assert not unconditional.any()
            assert conditional.any()

    def test_5_of_three_views_two_are_generated(self, as_released, make_batch):
        model, batch = as_released(3), make_batch(3, 3)
        assert list(model.feature_parts()) == ["person", "view 0", "view 1"]
        before = fresh(model, batch)
        assert before.shape == (3, 3 * DIM)
        model.memory_bank.prototypes[2] += 1
        assert torch.equal(fresh(model, batch), before)
        model.on_evaluation_start()
        second = model(batch, ["view 1"])
        torch.testing.assert_close(second, before[:, 2 * DIM :])

    def test_6_drop_path_acts_in_training_alone(self, as_released, make_batch):
        model, batch = as_released(2, "MODEL.BACKBONE.DROP_PATH_RATIO", "0.9"), make_batch(2, 8)
        evaluated = model.encode(batch).features
        assert torch.equal(model.encode(batch).features, evaluated)
        first, second = (model.train().encode(batch).features for _ in range(2))
        assert (first - second).abs().max() > 1e-3
        statistics = model.heads.bottleneck[0].running_mean.clone()
        model(batch)
        assert torch.equal(model.heads.bottleneck[0].running_mean, statistics)

    def test_7_noise_comes_from_one_generator_in_batch_order(self, as_released, make_batch):
        model, batch = as_released(), make_batch(2, 3)
        first, second, again = fresh(model, batch), model(batch), fresh(model, batch)
        assert torch.equal(first, again)
        torch.testing.assert_close(first[:, :DIM], second[:, :DIM])
        assert (first - second).abs().max() > 1e-2
        source = torch.Generator().manual_seed(SEED)
        starts = [torch.randn(3, 4, 8, 4, generator=source) for _ in range(2)]
        inputs = []
        model.generator.unet.register_forward_pre_hook(lambda _, args: inputs.append(args[0].chunk(2)[0]))
        fresh(model, batch)
        assert torch.equal(inputs[0], starts[0])
        assert torch.equal(inputs[len(inputs) // 2], starts[1])


def test_it_says_in_one_line_that_it_is_not_the_described_method(as_released, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fastreid"), "propagate", True)
    as_released(), as_released()
    (line,) = [record.getMessage() for record in caplog.records if "release's code" in record.getMessage()]
    assert "SDReIDStage2AsReleased" in line


@pytest.mark.parametrize(
    "option",
    [
        ("MODEL.SDMODEL.TARGET", "cross_view"),
        ("MODEL.SDMODEL.TARGET", "identity_mean"),
        ("MODEL.BACKBONE.PART_TOKENS", "4"),
        ("MODEL.SDMODEL.PREDICTION_TYPE", "v_prediction"),
        ("MODEL.SDMODEL.VIEW_MAP", "prototype"),
        ("MODEL.SDMODEL.TOKEN_DROPOUT", "0.5"),
        ("MODEL.SDMODEL.TOKEN_MIXING", "0.5"),
        ("MODEL.SDMODEL.STANDARDIZE_LATENT", "True"),
        ("MODEL.SDMODEL.STANDARDIZE_TOKENS", "True"),
        ("MODEL.SDMODEL.CACHE_FEATURES", "True"),
        ("MODEL.SDMODEL.SCHEDULER_CONFIG.NAME", "euler"),
        ("MODEL.SDMODEL.SCHEDULER_CONFIG.TIMESTEP_POWER", "7.0"),
        ("MODEL.SDMODEL.VRD_CONFIG.PYRAMIDS", "['decoder']"),
        ("TEST.SDMODEL.PREDICTION", "mean"),
        ("TEST.SDMODEL.NOISE", "per_image"),
        ("TEST.SDMODEL.FUSION", "weighted"),
        ("TEST.SDMODEL.GENERATED_NECK", "True"),
    ],
)
def test_what_the_release_has_not_is_refused(tiny_cfg, option):
    cfg = tiny_cfg(2, *option)
    cfg.MODEL.META_ARCHITECTURE = "SDReIDStage2AsReleased"
    with pytest.raises(UserError, match=f"{option[0]} is {re.escape(option[1])}"):
        check_config(cfg, training=False)


def test_a_stage_2_with_the_config_of_stage_1_is_run_as_released(convert, converted):
    names, _ = stage2_file()
    assert convert({"model": dict(names)}, "Baseline_stage1_3view")[0] == 0
    assert type(converted()).__name__ == "SDReIDStage2AsReleased"


def test_neither_an_export_nor_files_of_features_are_made_of_it(convert, tmp_path):
    names, _ = stage2_file()
    convert({"model": dict(names)}, "Baseline_stage2_old_3view_2")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (32, 64)).save(tmp_path / "pictures" / "a.png")
    checkpoint = ["--checkpoint", tmp_path / "ours" / "model_best.pth"]
    for command in (
        ["export.py", "--config-file", tmp_path / "ours" / "config.yaml"],
        ["extract_features.py", *checkpoint, "--folder", tmp_path / "pictures", "--output", tmp_path / "out"],
    ):
        code, _, error = run_tool(*command)
        assert code == 2
        assert "feature" in error
        assert "depends on the" in error
    assert not (tmp_path / "out").exists()
