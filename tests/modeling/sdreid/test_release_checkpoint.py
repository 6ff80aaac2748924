"""Checkpoints of the reference release: what a model of its names computes, the converted one computes.

The files are written here by hand, name by name, and their outputs computed with torch's own modules.
"""

import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from worlds.programs import run_tool

from fastreid.config import get_cfg
from fastreid.engine import load_trained_model
from fastreid.utils.checkpoint import load_checkpoint

DIM, BLOCKS, HEADS, PATCH, VIEWS, IDENTITIES = 128, 3, 4, 16, 3, 5
HEIGHT, WIDTH = 64, 32
UNET_WIDTHS = (32, 32, 64)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}

YAML = f"""
MODEL:
  META_ARCHITECTURE: {{architecture}}
  DEVICE: cpu
  BACKBONE:
    {{{{NAME: build_vit_prompt, DEPTH: custom, FEAT_DIM: {DIM}, NUM_LAYERS: {BLOCKS}, NUM_HEADS: {HEADS}}}}}
  SDMODEL:
    MOEMNTUM: 0.8
    SWITCH: True
    UNET_CONFIG: {{{{WIDTHS: {list(UNET_WIDTHS)}, TRAINABLE_BLOCK_IDX: [0]}}}}
    CON_LEARNER_CONFIG: {{{{HEADS: {HEADS}, DEPTH: 1}}}}
INPUT: {{{{SIZE_TRAIN: [{HEIGHT}, {WIDTH}], SIZE_TEST: [{HEIGHT}, {WIDTH}]}}}}
"""


class Names(dict):
    """Random tensors under names; every one is drawn, none is zero or one."""

    def __init__(self) -> None:
        super().__init__()
        self.source = torch.Generator().manual_seed(3)

    def draw(self, name: str, *shape: int, around: float = 0.0) -> None:
        self[name] = around + 0.1 * torch.randn(shape, generator=self.source)

    def linear(self, name: str, inputs: int, outputs: int) -> None:
        self.draw(f"{name}.weight", outputs, inputs)
        self.draw(f"{name}.bias", outputs)

    def norm(self, name: str, width: int) -> None:
        self.draw(f"{name}.weight", width, around=1.0)
        self.draw(f"{name}.bias", width)

    def neck(self, name: str, classes: int) -> None:
        self.norm(f"{name}.bottleneck.0", DIM)
        self.draw(f"{name}.bottleneck.0.running_mean", DIM)
        self[f"{name}.bottleneck.0.running_var"] = 0.5 + torch.rand(DIM, generator=self.source)
        self[f"{name}.bottleneck.0.num_batches_tracked"] = torch.tensor(7)
        self.draw(f"{name}.weight", classes, DIM)


def stage1_file() -> Names:
    names = Names()
    for token in ("cls_token", "view_prompt"):
        names.draw(f"backbone.{token}", 1, 1, DIM)
    names.draw("backbone.pos_embed", 1, 1 + HEIGHT // PATCH * WIDTH // PATCH, DIM)
    names.draw("backbone.patch_embed.proj.weight", DIM, 3, PATCH, PATCH)
    names.draw("backbone.patch_embed.proj.bias", DIM)
    for index in range(BLOCKS):
        block = f"backbone.blocks.{index}"
        names.norm(f"{block}.norm1", DIM)
        names.linear(f"{block}.attn.qkv", DIM, 3 * DIM)
        names.linear(f"{block}.attn.proj", DIM, DIM)
        names.norm(f"{block}.norm2", DIM)
        names.linear(f"{block}.mlp.fc1", DIM, 4 * DIM)
        names.linear(f"{block}.mlp.fc2", 4 * DIM, DIM)
    names.norm("backbone.norm", DIM)
    names.neck("heads", IDENTITIES)
    names.neck("view_heads", VIEWS)
    for view in range(VIEWS):
        names.draw(f"mm.view_centers.{view}", DIM)
    return names


def stage2_file(kernel: int = 3, layers: int = 2) -> tuple[Names, nn.Module]:
    """The file, and the UNet whose weights are in it."""
    from diffusers import UNet2DConditionModel

    names = stage1_file()
    torch.manual_seed(5)
    unet = UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        block_out_channels=UNET_WIDTHS,
        layers_per_block=1,
        attention_head_dim=(1, 1, 2),
        norm_num_groups=8,  # what our small UNet has
        cross_attention_dim=DIM,
    ).eval()
    for name, value in unet.state_dict().items():
        names[f"unet.model.{name}"] = value
        names[f"inverse_sampling.unet.model.{name}"] = value
    names.draw("condition_learner.learnable_vector", 1, BLOCKS, DIM)
    for index, width in enumerate(UNET_WIDTHS * 2):
        names.draw(f"condition_learner.downsamplers.{index}.weight", width, 1, kernel, kernel)
        names.draw(f"condition_learner.downsamplers.{index}.bias", width)
    for index in range(layers):
        block = f"condition_learner.trans.resblocks.{index}"
        names.norm(f"{block}.ln_1", DIM)
        names.draw(f"{block}.attn.in_proj_weight", 3 * DIM, DIM)
        names.draw(f"{block}.attn.in_proj_bias", 3 * DIM)
        names.linear(f"{block}.attn.out_proj", DIM, DIM)
        names.norm(f"{block}.ln_2", DIM)
        names.linear(f"{block}.mlp.c_fc", DIM, 4 * DIM)
        names.linear(f"{block}.mlp.c_proj", 4 * DIM, DIM)
    return names, unet


def norm(names: Names, name: str, tokens: Tensor, eps: float) -> Tensor:
    return F.layer_norm(tokens, (DIM,), names[f"{name}.weight"], names[f"{name}.bias"], eps)


def linear(names: Names, name: str, tokens: Tensor) -> Tensor:
    return F.linear(tokens, names[f"{name}.weight"], names[f"{name}.bias"])


def vit_block(names: Names, block: str, tokens: Tensor) -> Tensor:
    packed = linear(names, f"{block}.attn.qkv", norm(names, f"{block}.norm1", tokens, 1e-6))
    query, key, value = (
        part.unflatten(2, (HEADS, DIM // HEADS)).transpose(1, 2) for part in packed.split(DIM, dim=2)
    )
    weights = (query @ key.transpose(2, 3) / math.sqrt(DIM // HEADS)).softmax(dim=-1)
    tokens = tokens + linear(names, f"{block}.attn.proj", (weights @ value).transpose(1, 2).flatten(2))
    hidden = F.gelu(linear(names, f"{block}.mlp.fc1", norm(names, f"{block}.norm2", tokens, 1e-6)))
    return tokens + linear(names, f"{block}.mlp.fc2", hidden)


def encode(names: Names, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Post-neck features, view tokens and identity tokens."""
    pixels = (images.float() - 127.5) / 127.5
    projection = [names[f"backbone.patch_embed.proj.{kind}"] for kind in ("weight", "bias")]
    tokens = F.conv2d(pixels, *projection, stride=PATCH).flatten(2).transpose(1, 2)
    tokens = torch.cat([names["backbone.cls_token"].expand(len(images), -1, -1), tokens], dim=1)
    tokens = tokens + names["backbone.pos_embed"]
    id_tokens = []
    for index in range(BLOCKS - 1):
        tokens = vit_block(names, f"backbone.blocks.{index}", tokens)
        id_tokens.append(tokens[:, 0])
    tokens = torch.cat([names["backbone.view_prompt"].expand(len(images), -1, -1), tokens], dim=1)
    tokens = vit_block(names, f"backbone.blocks.{BLOCKS - 1}", tokens)
    neck = [f"heads.bottleneck.0.{kind}" for kind in ("running_mean", "running_var", "weight", "bias")]
    features = F.batch_norm(norm(names, "backbone.norm", tokens[:, 1], 1e-6), *(names[n] for n in neck))
    return features, tokens[:, 0], torch.stack(id_tokens, dim=1)


def learn_conditions(names: Names, tokens: Tensor, layers: int) -> Tensor:
    """CLIP's residual attention blocks with QuickGELU."""
    for index in range(layers):
        block = f"condition_learner.trans.resblocks.{index}"
        attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        attention.load_state_dict(
            {name.removeprefix(f"{block}.attn."): t for name, t in names.items() if f"{block}.attn." in name}
        )
        normed = norm(names, f"{block}.ln_1", tokens, 1e-5)
        tokens = tokens + attention(normed, normed, normed, need_weights=False)[0]
        hidden = linear(names, f"{block}.mlp.c_fc", norm(names, f"{block}.ln_2", tokens, 1e-5))
        tokens = tokens + linear(names, f"{block}.mlp.c_proj", hidden * torch.sigmoid(1.702 * hidden))
    return tokens


@pytest.fixture
def convert(tmp_path):
    """Converts a file that holds `content`; gives the exit code and what was printed."""

    def run(content: dict, architecture: str, *more: str) -> tuple[int, str]:
        torch.save(content, tmp_path / "theirs.pth")
        (tmp_path / "theirs.yml").write_text(YAML.format(architecture=architecture))
        files = ["--weights", tmp_path / "theirs.pth", "--config-file", tmp_path / "theirs.yml"]
        output = tmp_path / "ours" / "model_best.pth"
        code, out, error = run_tool("convert_checkpoint.py", *files, "--output", output, *more)
        return code, out + error

    return run


def converted(folder: Path) -> nn.Module:
    """The model as every tool loads it, from the two files."""
    cfg = get_cfg()
    cfg.merge_from_file(folder / "ours" / "config.yaml")
    cfg.freeze()
    return load_trained_model(cfg)


@torch.no_grad()
def test_stage_1_computes_what_the_reference_does(convert, tmp_path):
    names = stage1_file()
    code, printed = convert({"model": dict(names), "iteration": 9}, "Baseline_stage1_3view")
    assert code == 0, printed
    model = converted(tmp_path)
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
def test_stage_2_computes_what_the_reference_does(convert, tmp_path, kernel):
    names, unet = stage2_file(kernel)
    code, printed = convert({"model": dict(names)}, "Baseline_stage2_old_3view_2")
    assert code == 0, printed
    model = converted(tmp_path)
    generator = model.generator
    assert model.cfg.MODEL.SDMODEL.VRD_CONFIG.KERNEL_SIZES == [kernel] * 3
    assert model.cfg.MODEL.SDMODEL.CON_LEARNER_CONFIG.DEPTH == 2

    tokens = torch.randn(4, BLOCKS, DIM)
    context = generator.condition_learner(tokens[:, :-1], tokens[:, -1])
    torch.testing.assert_close(context, learn_conditions(names, tokens, 2), **CLOSE)
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
    assert "loaded heads.* heads.* 6" in lines
    assert "loaded mm.view_centers.* memory_bank.* 3" in lines
    assert f"dropped inverse_sampling.* the same as unet.model.* {tensors}" in lines
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
        ("view_heads.weight", "1 of view_heads.*, first view_heads.weight"),
        ("mm.view_centers.1", "memory_bank.prototypes"),
        ("heads.weight", "no checkpoint of the reference release"),
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


def test_shapes_that_contradict_the_config_are_named(convert):
    names = stage1_file()
    names.draw("backbone.pos_embed", 1, 129, DIM)
    code, printed = convert({"model": dict(names)}, "Baseline_stage1_3view")
    assert code == 2
    assert "backbone.pos_embed (1, 129, 128), expected (1, 9, 128)" in printed


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
