"""Checkpoints with the reference release's names, written by hand, and what plain torch makes of them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    UNET_CONFIG: {{{{WIDTHS: {list(UNET_WIDTHS)}, TRAINABLE_BLOCK_IDX: [0]}}}}
    CON_LEARNER_CONFIG: {{{{HEADS: {HEADS}, DEPTH: 1, SWITCH: 2, SWITCH2: 1}}}}
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


def stage2_file(kernels: tuple[int, int, int] = (2, 4, 8), layers: int = 2) -> tuple[Names, nn.Module]:
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
    for index, (width, kernel) in enumerate(zip(UNET_WIDTHS * 2, kernels * 2, strict=True)):
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


def learn_conditions(names: Names, tokens: Tensor, layers: int, batch_first: bool) -> Tensor:
    """CLIP's residual attention blocks with QuickGELU; CLIP's own get the batch as the second dimension."""
    for index in range(layers):
        block = f"condition_learner.trans.resblocks.{index}"
        attention = nn.MultiheadAttention(DIM, HEADS, batch_first=batch_first)
        attention.load_state_dict(
            {name.removeprefix(f"{block}.attn."): t for name, t in names.items() if f"{block}.attn." in name}
        )
        normed = norm(names, f"{block}.ln_1", tokens, 1e-5)
        tokens = tokens + attention(normed, normed, normed, need_weights=False)[0]
        hidden = linear(names, f"{block}.mlp.c_fc", norm(names, f"{block}.ln_2", tokens, 1e-5))
        tokens = tokens + linear(names, f"{block}.mlp.c_proj", hidden * torch.sigmoid(1.702 * hidden))
    return tokens
