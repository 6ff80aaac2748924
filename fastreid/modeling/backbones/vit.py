"""The SD-ReID encoder: a vision transformer with a view prompt before its last block."""

import logging
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import nn

from fastreid.config import CfgNode
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from fastreid.modeling.backbones.patch_embed import PatchEmbed
from fastreid.modeling.backbones.pretrained import PretrainedReport, fit_pretrained_vit
from fastreid.structures import EncoderOutput
from fastreid.utils.errors import UserError

logger = logging.getLogger(__name__)

# width, blocks, attention heads
PRESETS = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


class VisionTransformer(nn.Module):
    """Stage 1's encoder (SD-ReID, arXiv 2504.09549).

    Class token and patch tokens pass the blocks 1 ... L-1. The learnable view prompt, which has no position
    embedding and starts at zero, is put in front of them for the last block. Blocks, names and initialisation
    are timm's, with `view_prompt` added; LayerNorm's eps is 1e-6 and drop path grows linearly with depth.

    Args:
        image_size, patch_size, stride, width, conv_stem: as in `PatchEmbed`; the position embeddings belong
            to this image size.
        depth: L, at least 2.
        num_heads: attention heads; must divide `width`.
        drop_path: drop rate of the last block's residual branches.
        dropout: drop rate after the position embeddings and in the blocks' projections.
        attention_dropout: drop rate of attention weights.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 128),
        patch_size: int = 16,
        stride: tuple[int, int] = (16, 16),
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        conv_stem: bool = False,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"the encoder needs at least 2 blocks, one before the view prompt; got {depth}")
        self.feat_dim = width
        self.num_id_tokens = depth - 1
        self.patch_embed = PatchEmbed(image_size, patch_size, stride, width, conv_stem)
        rows, columns = self.patch_embed.grid_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.view_prompt = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, width))
        self.pos_drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                width,
                num_heads,
                qkv_bias=True,
                proj_drop=dropout,
                attn_drop=attention_dropout,
                drop_path=drop_path * index / (depth - 1),
                norm_layer=_layer_norm,
            )
            for index in range(depth)
        )
        self.norm = _layer_norm(width)
        self._initialise()

    def _initialise(self) -> None:
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def load_pretrained(self, path: str | Path) -> PretrainedReport:
        """Load timm-format ViT weights, see :func:`fit_pretrained_vit`; unchanged if they do not fit."""
        state, report = fit_pretrained_vit(self, path)
        self.load_state_dict(state, strict=False)
        logger.info("ViT weights from %s: %s", path, report.summary())
        return report

    def check_pretrained(self, path: str | Path) -> str:
        """Say how much of the file would be loaded; raise as :meth:`load_pretrained`."""
        _, report = fit_pretrained_vit(self, path)
        return report.summary().replace("loaded", "fit", 1)

    def forward(self, images: torch.Tensor) -> EncoderOutput:
        """Encode (B, 3, H, W) float images, normalised, of the size given at construction.

        Raises:
            ValueError: for images whose size gives another patch grid.
        """
        height, width = images.shape[-2:]
        if self.patch_embed.grid_of((height, width)) != self.patch_embed.grid_size:
            raise ValueError(f"images of {height}x{width}, built for {self.patch_embed.image_size}")
        batch = images.shape[0]  # len() would fix the batch size when the model is exported
        tokens = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), tokens], dim=1)
        tokens = self.pos_drop(tokens + self.pos_embed)
        id_tokens = []
        for block in self.blocks[:-1]:
            tokens = block(tokens)
            id_tokens.append(tokens[:, 0])
        tokens = torch.cat([self.view_prompt.expand(batch, -1, -1), tokens], dim=1)
        tokens = self.blocks[-1](tokens)
        return EncoderOutput(self.norm(tokens[:, 1]), tokens[:, 0], torch.stack(id_tokens, dim=1))


def _layer_norm(width: int, **kwargs: Any) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, **kwargs)


@BACKBONE_REGISTRY.register()
def build_vit_backbone(cfg: CfgNode) -> VisionTransformer:
    """Return a randomly initialised encoder from ``MODEL.BACKBONE`` for images of ``INPUT.SIZE_TRAIN``.

    Raises:
        UserError: for sizes that contradict each other.
    """
    options = cfg.MODEL.BACKBONE
    width, depth, num_heads = _dimensions(options)
    image_size = tuple(cfg.INPUT.SIZE_TRAIN)
    stride = tuple(options.STRIDE_SIZE)
    if max(stride) > options.PATCH_SIZE:
        raise UserError(
            f"MODEL.BACKBONE.STRIDE_SIZE {list(stride)} leaves gaps between patches",
            f"use at most MODEL.BACKBONE.PATCH_SIZE ({options.PATCH_SIZE})",
        )
    try:
        encoder = VisionTransformer(
            image_size,
            options.PATCH_SIZE,
            stride,
            width,
            depth,
            num_heads,
            conv_stem=options.CONV_STEM,
            drop_path=options.DROP_PATH_RATIO,
            dropout=options.DROP_RATIO,
            attention_dropout=options.ATT_DROP_RATE,
        )
    except ValueError as error:
        raise UserError(f"MODEL.BACKBONE: {error}", "change PATCH_SIZE, STRIDE_SIZE or CONV_STEM") from error
    test_size = tuple(cfg.INPUT.SIZE_TEST)
    if encoder.patch_embed.grid_of(test_size) != encoder.patch_embed.grid_size:
        raise UserError(
            f"INPUT.SIZE_TEST {list(test_size)} gives another patch grid than INPUT.SIZE_TRAIN"
            f" {list(image_size)}",
            "set both to one size",
        )
    return encoder


def _dimensions(options: CfgNode) -> tuple[int, int, int]:
    """Return (width, blocks, heads) of ``MODEL.BACKBONE``, checked."""
    if options.DEPTH == "custom":
        width, depth, num_heads = options.FEAT_DIM, options.NUM_LAYERS, options.NUM_HEADS
        if depth < 2:
            raise UserError(f"MODEL.BACKBONE.NUM_LAYERS {depth}: the encoder needs at least 2 blocks")
        if num_heads < 1 or width < 1 or width % num_heads:
            raise UserError(
                f"MODEL.BACKBONE.FEAT_DIM {width} must be a multiple of MODEL.BACKBONE.NUM_HEADS {num_heads}"
            )
        return width, depth, num_heads
    width, depth, num_heads = PRESETS[options.DEPTH]
    if width != options.FEAT_DIM:
        raise UserError(
            f"MODEL.BACKBONE.FEAT_DIM {options.FEAT_DIM} contradicts MODEL.BACKBONE.DEPTH"
            f" {options.DEPTH!r}, whose width is {width}",
            f"set FEAT_DIM to {width}",
        )
    return width, depth, num_heads
