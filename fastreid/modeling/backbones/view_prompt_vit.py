"""The SD-ReID encoder: a vision transformer with a view prompt before its last block."""

from typing import Any

import torch
from torch import nn

from fastreid.config import NOT_NEGATIVE, CfgNode, Changes, Key
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from fastreid.modeling.backbones.vit import VisionTransformer, build_vit
from fastreid.structures import EncoderOutput
from fastreid.utils.errors import UserError


class ViewPromptTransformer(VisionTransformer):
    """Stage 1's encoder (SD-ReID, arXiv 2504.09549).

    Class token and patch tokens pass the blocks 1 ... L-1. The learnable view prompt, which has no position
    embedding and starts at zero, is put in front of them for the last block.

    Args:
        part_tokens: P, further identity tokens: the patch tokens after block L-1, the last ones that a loss
            on the class token shapes, averaged over each of P horizontal stripes from top to bottom.
        kwargs: as in `VisionTransformer`; at least 2 blocks.

    Attributes:
        num_id_tokens: L-1 + P.

    Raises:
        UserError: if the rows of patches do not make P equal stripes.
    """

    fewest_blocks = 2  # one before the view prompt

    def __init__(self, *args: Any, part_tokens: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rows, _ = self.patch_embed.grid_size
        if part_tokens and rows % part_tokens:
            raise UserError(
                f"MODEL.BACKBONE.PART_TOKENS is {part_tokens}; the {rows} rows of patches do not make as many"
                " equal stripes",
                f"use one of {', '.join(str(n) for n in range(1, rows + 1) if rows % n == 0)}, or 0",
            )
        self.part_tokens = part_tokens
        self.num_id_tokens = len(self.blocks) - 1 + part_tokens
        self.view_prompt = nn.Parameter(torch.zeros(1, 1, self.feat_dim))

    def forward(self, images: torch.Tensor) -> EncoderOutput:
        """Encode (B, 3, H, W) float images, normalised, of the size given at construction."""
        tokens = self.embed(images)
        id_tokens = []
        for block in self.blocks[:-1]:
            tokens = block(tokens)
            id_tokens.append(tokens[:, 0])
        if self.part_tokens:
            id_tokens += tokens[:, 1:].unflatten(1, (self.part_tokens, -1)).mean(2).unbind(1)
        tokens = torch.cat([self.view_prompt.expand(images.shape[0], -1, -1), tokens], dim=1)
        tokens = self.blocks[-1](tokens)
        return EncoderOutput(self.norm(tokens[:, 1]), tokens[:, 0], torch.stack(id_tokens, dim=1))


KEYS = {"PART_TOKENS": Key(0, "stripes of patches that are identity tokens, too", NOT_NEGATIVE, Changes.BOTH)}


@BACKBONE_REGISTRY.register(KEYS={"MODEL.BACKBONE": KEYS})
def build_vit_backbone(cfg: CfgNode) -> ViewPromptTransformer:
    """Return SD-ReID's encoder, randomly initialised, from ``MODEL.BACKBONE`` for ``INPUT.SIZE_TRAIN``."""
    return build_vit(cfg, ViewPromptTransformer, part_tokens=cfg.MODEL.BACKBONE.PART_TOKENS)
