"""Checkpoints of the reference release: what a model of its names computes, the converted one computes.

The files are written here by hand, name by name, and their outputs computed with torch's own modules.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from release_files import (
    BLOCKS,
    CLOSE,
    DIM,
    HEIGHT,
    IDENTITIES,
    UNET_WIDTHS,
    VIEWS,
    WIDTH,
    encode,
    learn_conditions,
    stage1_file,
    stage2_file,
)

from fastreid.utils.checkpoint import load_checkpoint


@torch.no_grad()
def test_stage_1_computes_what_the_reference_does(convert, tmp_path, converted):
    names = stage1_file()
    code, printed = convert({"model": dict(names), "iteration": 9}, "Baseline_stage1_3view")
    assert code == 0, printed
    model = converted()
    images = torch.randint(0, 256, (4, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    features, view_tokens, id_tokens = encode(names, images)
    torch.testing.assert_close(model({"images": images}), features, **CLOSE)
    encoded = model.encode({"images": images})
    torch.testing.assert_close(encoded.view_token, view_tokens, **CLOSE)
    torch.testing.assert_close(encoded.id_tokens, id_tokens, **CLOSE)
    centers = torch.stack([names[f"mm.view_centers.{view}"] for view in range(VIEWS)])
    assert torch.equal(model.memory_bank.prototypes, centers)
    assert model.memory_bank.seen.all()
    assert torch.equal(model.heads.weight, names["heads.weight"])
    assert torch.equal(model.view_heads.weight, names["view_heads.weight"])
    assert load_checkpoint(tmp_path / "ours/model_best.pth")["meta"]["num_classes"] == IDENTITIES


@pytest.mark.parametrize("kernel", [3, 5])
@torch.no_grad()
def test_stage_2_is_made_of_what_the_reference_computes(convert, kernel, converted):
    names, unet = stage2_file((kernel,) * 3)
    code, printed = convert({"model": dict(names)}, "SDReIDStage2")
    assert code == 0, printed
    model = converted()
    generator = model.generator
    assert model.cfg.MODEL.SDMODEL.VRD_CONFIG.KERNEL_SIZES == [kernel] * 3
    assert model.cfg.MODEL.SDMODEL.CON_LEARNER_CONFIG.DEPTH == 2

    tokens = torch.randn(4, BLOCKS, DIM)
    context = generator.condition_learner(tokens[:, :-1], tokens[:, -1])
    torch.testing.assert_close(context, learn_conditions(names, tokens, 2, batch_first=True), **CLOSE)
    null = names["condition_learner.learnable_vector"]
    assert torch.equal(generator.condition_learner.null_context, null)

    view_tokens = torch.randn(2, DIM)  # a map of 16 x 8
    residuals = generator.view_refined_decoder(view_tokens)
    for index, found in enumerate([*residuals.encoder, *residuals.decoder]):
        weights = [names[f"condition_learner.downsamplers.{index}.{kind}"] for kind in ("weight", "bias")]
        stride = (2, 4, 8)[index % 3]
        expected = F.conv2d(view_tokens.view(2, 1, 16, 8), *weights, stride, padding=kernel // 2)
        torch.testing.assert_close(found, expected, **CLOSE)

    latents = torch.randn(2, 4, 8, 4)
    given = [net(latents, 11, encoder_hidden_states=tokens[:2]).sample for net in (unet, generator.unet)]
    torch.testing.assert_close(*given, **CLOSE)
    images = torch.randint(0, 256, (2, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    retrieval = model({"images": images, "img_paths": ["a", "b"]})
    assert retrieval.shape == (2, (1 + VIEWS) * DIM)
    torch.testing.assert_close(retrieval[:, :DIM], encode(names, images)[0], **CLOSE)


def test_the_report_counts_what_was_loaded_and_names_what_was_not(convert):
    names, unet = stage2_file()
    tensors = len(unet.state_dict())
    names.draw("backbone.head.weight", 1000, DIM)
    names.draw("condition_learner.proj", 4)
    code, printed = convert(
        {"model": {f"module.{n}": t for n, t in names.items()}}, "Baseline_stage2_old_3view_2"
    )
    assert code == 0, printed
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert f"loaded unet.model.* generator.unet.* {tensors}" in lines
    assert "loaded heads.bottleneck.* heads.bottleneck.* 5" in lines
    assert "loaded heads.weight heads.weight 1" in lines
    assert "loaded mm.view_centers memory_bank.prototypes 1" in lines
    assert f"dropped inverse_sampling.unet.* the same as unet.model.* {tensors}" in lines
    assert [line for line in lines if line.startswith("unknown")] == [
        "unknown backbone.head.weight 1",
        "unknown condition_learner.proj 1",
    ]


def test_a_second_copy_that_differs_is_not_dropped_in_silence(convert):
    names, _ = stage2_file()
    names["inverse_sampling.unet.model.conv_in.bias"] = names["unet.model.conv_in.bias"] + 1
    code, printed = convert({"model": dict(names)}, "Baseline_stage2_old_3view_2")
    assert code == 0
    assert "unknown  inverse_sampling.unet.model.conv_in.bias" in printed


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("backbone.blocks.1.attn.qkv.bias", "lacks 1 of .*backbone.blocks.1.attn.qkv.bias"),
        ("mm.view_centers.1", "memory_bank.prototypes"),
        ("heads.weight", "not a checkpoint of the reference release"),
    ],
)
def test_what_is_missing_is_an_error(convert, tmp_path, absent, said):
    names = stage1_file()
    del names[absent]
    code, printed = convert({"model": dict(names)}, "Baseline_stage1_3view")
    assert code == 2
    assert "error: " in printed
    assert re.search(said, printed), printed
    assert not (tmp_path / "ours").exists()


def test_what_training_alone_reads_may_be_missing(convert, converted):
    names = stage1_file()
    del names["view_heads.weight"]
    assert convert({"model": dict(names)}, "Baseline_stage1_3view")[0] == 0
    images = torch.randint(0, 256, (2, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(converted()({"images": images}), encode(names, images)[0], **CLOSE)


def test_the_authors_file_is_not_replaced(convert, tmp_path):
    theirs = tmp_path / "theirs.pth"
    code, printed = convert(
        {"model": dict(stage1_file())}, "Baseline_stage1_3view", "--overwrite", "--output", theirs
    )
    assert code == 2
    assert "--output is the file to convert" in printed
    assert set(load_checkpoint(theirs)["model"]) == set(stage1_file())


def test_shapes_that_contradict_the_config_are_named(convert):
    names = stage1_file()
    names.draw("backbone.pos_embed", 1, 129, DIM)
    code, printed = convert({"model": dict(names)}, "Baseline_stage1_3view")
    assert code == 2
    assert "backbone.pos_embed (1, 129, 128) instead of (1, 9, 128)" in printed


ODD = {
    "integers": ("backbone.pos_embed", lambda v: v.int(), "backbone.pos_embed torch.int32 instead of"),
    "NaN": ("backbone.pos_embed", lambda v: v * float("nan"), "the file: backbone.pos_embed has NaN"),
    "one number": ("heads.weight", lambda v: v.sum(), "not of the shapes that its authors' code writes"),
    "other centers": ("mm.view_centers.1", lambda v: v[..., 1:], "not of the shapes that its authors'"),
}


@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_cannot_be_weights_are_not_converted(convert, kind):
    name, change, said = ODD[kind]
    names = stage1_file()
    code, printed = convert({"model": dict(names) | {name: change(names[name])}}, "Baseline_stage1_3view")
    assert code == 2
    assert said in printed


def test_pyramids_with_different_kernels_are_refused(convert):
    names, _ = stage2_file()
    names.draw("condition_learner.downsamplers.4.weight", UNET_WIDTHS[1], 1, 5, 5)
    code, printed = convert({"model": dict(names)}, "Baseline_stage2_old_3view_2")
    assert code == 2
    assert "expected convolutions from 1 channel" in printed


class Foreign:
    """What a checkpoint may hold beside tensors."""


def test_a_file_with_foreign_objects_is_refused_with_advice(convert):
    code, printed = convert({"model": dict(stage1_file()), "cfg": Foreign()}, "Baseline_stage1")
    assert code == 2
    assert "holds Python objects beside tensors" in printed
    assert "save its state_dict alone" in printed


def test_existing_files_are_kept_unless_asked(convert, tmp_path):
    content = {"model": dict(stage1_file())}
    assert convert(content, "Baseline_stage1_3view")[0] == 0
    code, printed = convert(content, "Baseline_stage1_3view")
    assert code == 2
    assert "model_best.pth exists" in printed
    assert convert(content, "Baseline_stage1_3view", "--overwrite")[0] == 0
