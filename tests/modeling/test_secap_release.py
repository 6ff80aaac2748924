"""Checkpoints of SeCap's authors: what a model of their names computes, the converted one computes.

The files are written here by hand, name by name, and their outputs computed image by image.
"""

import pytest
import torch
import torch.nn.functional as F
from plain_secap import State, attention_block, norm, refined, vit_block

DIM, BLOCKS, HEADS, PATCHES, PROMPTS, IDENTITIES = 128, 3, 4, 8, 5, 6
YAML = """
    MODEL:
      META_ARCHITECTURE: Baseline_multiview_SeCap
      DEVICE: cpu
      BACKBONE: {NAME: build_multiview_vit_backbone_SeCap, DEPTH: custom, FEAT_DIM: 128, NUM_LAYERS: 3,
                 NUM_HEADS: 4, INNER_SUB: True, USE_PRM: True}
    INPUT: {SIZE_TRAIN: [64, 32], SIZE_TEST: [64, 32]}
    """
LFRM = {"layers": "layers", "final": "final_attn_token_to_image", "norm": "norm_final_attn"}
CROSS = {f"{letter}_proj": (DIM, DIM) for letter in "qkv"} | {"out_proj": (DIM, DIM)}
HALF = {f"{letter}_proj": (DIM // 2, DIM) for letter in "qkv"} | {"out_proj": (DIM, DIM // 2)}
MLP = {"mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM)}


def prefixed(prefix: str, shapes: dict) -> dict:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def norms(*numbers: int) -> dict:
    return {f"norm{number}": (DIM,) for number in numbers}


def layers() -> dict[str, tuple[int, ...]]:
    """Return the shape of the weight of each layer that has weight and bias, by its name."""
    attention = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)}
    block = norms(1, 2) | attention | MLP
    shapes = {"base.patch_embed.proj": (DIM, 3, 16, 16), "base.norm": (DIM,), "b1.1": (DIM,)}
    for number in range(BLOCKS):
        shapes |= prefixed(f"base.blocks.{number}", block)
    shapes |= prefixed("b1.0", block)
    attends = norms(1, 2, 3) | prefixed("cross_attn", CROSS) | MLP | {"attn.proj": (DIM, DIM)}
    shapes |= prefixed("prm", attends) | {"prm.attn2.proj": (DIM, DIM)}
    shapes |= prefixed("lfrm.final_attn_token_to_image", attends) | {"lfrm.norm_final_attn": (DIM,)}
    two_way = norms(1, 2, 3, 4) | MLP
    for part in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
        two_way |= prefixed(part, HALF)
    for number in range(2):
        shapes |= prefixed(f"lfrm.layers.{number}", two_way)
    return prefixed("backbone", shapes)


def parameters() -> dict[str, tuple[int, ...]]:
    """Return the shapes of what stands alone."""
    tokens = {"base.cls_token": (1, 1, DIM), "base.view_token": (1, 1, DIM), "prompt": (1, PROMPTS, DIM)}
    tokens |= {"base.pos_embed": (1, PATCHES + 2, DIM), "image_pe": (1, PATCHES, DIM)}
    tokens |= {"out_token": (1, DIM), "lfrm.out_token": (1, DIM)}
    for name in ("prm.attn", "prm.attn2", "lfrm.final_attn_token_to_image.attn"):
        tokens[f"{name}.qkv.weight"] = (3 * DIM, DIM)
    shapes = prefixed("backbone", tokens)
    for head, classes in (("heads", IDENTITIES), ("view_heads", 2), ("local_heads", IDENTITIES)):
        shapes[f"{head}.weight"] = (classes, DIM)
        shapes |= prefixed(f"{head}.bottleneck.0", {"weight": (DIM,), "bias": (DIM,), "running_mean": (DIM,)})
    return shapes


@pytest.fixture
def theirs() -> State:
    """Their state dict: random, scaled so that nothing saturates."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name, shape in layers().items():
        fan_in = torch.Size(shape[1:]).numel()
        weight = torch.randn(shape, generator=generator) / fan_in**0.5
        state[f"{name}.weight"] = 1 + 0.2 * weight if len(shape) == 1 else weight
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    for name, shape in parameters().items():
        state[name] = 0.3 * torch.randn(shape, generator=generator)
    for head in ("heads", "view_heads", "local_heads"):
        state[f"{head}.bottleneck.0.running_var"] = torch.rand(DIM, generator=generator) + 0.5
        state[f"{head}.bottleneck.0.num_batches_tracked"] = torch.tensor(7)
    return state


def after_neck(state: State, head: str, feature: torch.Tensor) -> torch.Tensor:
    kinds = ("running_mean", "running_var", "weight", "bias")
    mean, variance, weight, bias = (state[f"{head}.bottleneck.0.{kind}"] for kind in kinds)
    return (feature - mean) / (variance + 1e-5).sqrt() * weight + bias


def their_feature(state: State, image: torch.Tensor, recalibrates: bool) -> torch.Tensor:
    """Their retrieval feature of an image (3, 64, 32) of 0 to 255."""
    projection = (state[f"backbone.base.patch_embed.proj.{kind}"] for kind in ("weight", "bias"))
    patches = F.conv2d((image[None] - 127.5) / 127.5, *projection, stride=16)[0].flatten(1).T
    tokens = [state["backbone.base.cls_token"][0], state["backbone.base.view_token"][0], patches]
    tokens = torch.cat(tokens) + state["backbone.base.pos_embed"][0]
    for number in range(BLOCKS - 1):
        tokens = vit_block(state, f"backbone.base.blocks.{number}", tokens, HEADS)
        tokens = torch.cat([tokens[:1] - tokens[1:2], tokens[1:]])
    last = norm(state, "backbone.b1.1", vit_block(state, "backbone.b1.0", tokens, HEADS), 1e-6)
    person = last[:1] - last[1:2]
    prompts = state["backbone.prompt"][0]
    if recalibrates:
        prompts = attention_block(state, "backbone.prm", prompts, person, person, HEADS)
    given, places = torch.cat([state["backbone.out_token"], prompts]), state["backbone.image_pe"][0]
    names = {part: f"backbone.lfrm.{name}" for part, name in LFRM.items()}
    local = refined(state, names, given, tokens[2:], places, HEADS)
    return torch.cat([after_neck(state, "heads", person[0]), after_neck(state, "local_heads", local)])


@pytest.mark.parametrize("recalibrates", [True, False])
@torch.no_grad()
def test_its_authors_checkpoint_computes_what_their_code_does(
    theirs, convert_checkpoint, converted, make_batch, recalibrates
):
    content = {"model": {f"module.{name}": value for name, value in theirs.items()}, "epoch": 119}
    code, printed = convert_checkpoint(content, YAML, "MODEL.BACKBONE.USE_PRM", str(recalibrates))
    assert code == 0, printed
    model, images = converted(), make_batch()["images"][:3]
    expected = torch.stack([their_feature(theirs, image.float(), recalibrates) for image in images])
    torch.testing.assert_close(model({"images": images}), expected, atol=1e-3, rtol=1e-3)


def test_what_the_file_tells_needs_no_setting_and_what_nothing_reads_is_dropped(
    theirs, convert_checkpoint, converted
):
    code, printed = convert_checkpoint({"model": theirs}, YAML)
    assert code == 0, printed
    assert "unknown" not in printed
    dropped = [line for line in printed.splitlines() if line.startswith("dropped")]
    assert all("its code never reads it" in line for line in dropped)
    numbers = {line.split()[1]: int(line.split()[-1]) for line in dropped}
    assert numbers == {"backbone.base.*": 2 + 12, "backbone.prm.*": 3, "backbone.lfrm.*": 1}
    model = converted()
    backbone = model.cfg.MODEL.BACKBONE
    assert (backbone.PROMPT_LEN, backbone.PROMPT_DEPTH, model.cfg.MODEL.HEADS.NUM_CLASSES) == (5, 2, 6)
    ground, aerial = theirs["view_heads.weight"]
    assert torch.equal(model.view_heads.weight, torch.stack([aerial, ground]))


def test_a_checkpoint_of_another_method_is_refused(theirs, convert_checkpoint):
    del theirs["backbone.prompt"]
    code, printed = convert_checkpoint({"model": theirs}, YAML)
    assert code == 2
    assert "this is not a checkpoint of the authors of SeCap: expected backbone.prompt" in printed
