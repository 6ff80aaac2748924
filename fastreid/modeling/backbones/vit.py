"""A vision transformer on pictures that need not be square."""

import logging
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from timm.models.vision_transformer import Block
from torch import nn

from fastreid.config import CfgNode
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from fastreid.modeling.backbones.patch_embed import PatchEmbed
from fastreid.modeling.backbones.pretrained import PretrainedReport, fit_pretrained_vit
from fastreid.utils.errors import UserError

logger = logging.getLogger(__name__)

# width, blocks, attention heads
PRESETS = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


class ViTOutput(NamedTuple):
    """The outputs of a ViT for B images with N patches; width D."""

    features: torch.Tensor
    """(B, D): the class token after the final norm."""
    patch_tokens: torch.Tensor
    """(B, N, D): the patch tokens after the final norm, row by row."""


class VisionTransformer(nn.Module):
    """A ViT (Dosovitskiy et al., ICLR 2021) whose patches may overlap.

    Blocks, names and initialisation are timm's; LayerNorm's eps is 1e-6, drop path grows linearly with depth.

    Args:
        image_size, patch_size, stride, width, conv_stem: as in `PatchEmbed`; the position embeddings belong
            to this image size.
        depth: L, the number of blocks.
        num_heads: attention heads; must divide `width`.
        drop_path: drop rate of the last block's residual branches.
        dropout: drop rate after the position embeddings and in the blocks' projections.
        attention_dropout: drop rate of attention weights.
    """

    extra_tokens: ClassVar[int] = 0
    """Tokens behind the class token that have position embeddings, too."""

    fewest_blocks: ClassVar[int] = 1
    """The least `depth` that it can have."""

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
        self.feat_dim = width
        self.patch_embed = PatchEmbed(image_size, patch_size, stride, width, conv_stem)
        rows, columns = self.patch_embed.grid_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.extra_tokens + rows * columns, width))
        self.pos_drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                width,
                num_heads,
                qkv_bias=True,
                proj_drop=dropout,
                attn_drop=attention_dropout,
                drop_path=drop_path * index / max(depth - 1, 1),
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

    def embed(self, images: torch.Tensor, prefix: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, 3, H, W) float images, normalised, to the first block's tokens (B, 1 + extra + N, D).

        Args:
            prefix: tokens before the patches (B, 1 + extra, D) where they are each image's own.

        Raises:
            ValueError: for images whose size gives another patch grid than that of construction.
        """
        height, width = images.shape[-2:]
        if self.patch_embed.grid_of((height, width)) != self.patch_embed.grid_size:
            raise ValueError(f"images of {height}x{width}, built for {self.patch_embed.image_size}")
        if prefix is None:
            prefix = self.prefix(images.shape[0])  # len() would fix the batch size of an exported model
        tokens = torch.cat([prefix, self.patch_embed(images)], dim=1)
        return self.pos_drop(tokens + self.pos_embed)

    def prefix(self, batch: int) -> torch.Tensor:
        """Return the tokens before the patches, (B, 1 + extra, D): the class token first."""
        return self.cls_token.expand(batch, -1, -1)

    def forward(self, images: torch.Tensor) -> ViTOutput:
        """Encode (B, 3, H, W) float images, normalised, of the size given at construction."""
        tokens = self.embed(images)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return ViTOutput(tokens[:, 0], tokens[:, 1:])


def _layer_norm(width: int, **kwargs: Any) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, **kwargs)


@BACKBONE_REGISTRY.register()
def build_plain_vit_backbone(cfg: CfgNode) -> VisionTransformer:
    """Return a randomly initialised ViT from ``MODEL.BACKBONE`` for images of ``INPUT.SIZE_TRAIN``."""
    return build_vit(cfg, VisionTransformer)


ViT = TypeVar("ViT", bound=VisionTransformer)


def build_vit(cfg: CfgNode, kind: type[ViT], **options: Any) -> ViT:
    """Return a randomly initialised ViT of that class from ``MODEL.BACKBONE``.

    Args:
        options: of the class, beside those of `VisionTransformer`.

    Raises:
        UserError: for sizes that contradict each other.
    """
    settings = cfg.MODEL.BACKBONE
    width, depth, num_heads = _dimensions(settings)
    image_size = tuple(cfg.INPUT.SIZE_TRAIN)
    stride = tuple(settings.STRIDE_SIZE)
    if max(stride) > settings.PATCH_SIZE:
        raise UserError(
            f"MODEL.BACKBONE.STRIDE_SIZE {list(stride)} leaves gaps between patches",
            f"use at most MODEL.BACKBONE.PATCH_SIZE ({settings.PATCH_SIZE})",
        )
    if depth < kind.fewest_blocks:
        raise UserError(
            f"MODEL.BACKBONE: {depth} blocks, but {settings.NAME} needs at least {kind.fewest_blocks} blocks",
            "raise MODEL.BACKBONE.NUM_LAYERS",
        )
    try:
        encoder = kind(
            image_size,
            settings.PATCH_SIZE,
            stride,
            width,
            depth,
            num_heads,
            conv_stem=settings.CONV_STEM,
            drop_path=settings.DROP_PATH_RATIO,
            dropout=settings.DROP_RATIO,
            attention_dropout=settings.ATT_DROP_RATE,
            **options,
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
        if num_heads < 1 or width < 1 or width % num_heads:
            raise UserError(
                f"MODEL.BACKBONE.FEAT_DIM {width} must be a multiple of MODEL.BACKBONE.NUM_HEADS {num_heads}"
            )
        return width, depth, num_heads
    if options.DEPTH not in PRESETS:
        raise UserError(
            f"MODEL.BACKBONE.DEPTH {options.DEPTH!r} is no ViT's", f"use one of {', '.join(PRESETS)}, custom"
        )
    width, depth, num_heads = PRESETS[options.DEPTH]
    if width != options.FEAT_DIM:
        raise UserError(
            f"MODEL.BACKBONE.FEAT_DIM {options.FEAT_DIM} contradicts MODEL.BACKBONE.DEPTH"
            f" {options.DEPTH!r}, whose width is {width}",
            f"set FEAT_DIM to {width}",
        )
    return width, depth, num_heads
