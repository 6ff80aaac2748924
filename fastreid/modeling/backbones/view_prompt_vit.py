"""The SD-ReID encoder: a vision transformer with a view prompt before its last block."""

from typing import Any

import torch
from torch import nn

from fastreid.config import CfgNode
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from fastreid.modeling.backbones.vit import VisionTransformer, build_vit
from fastreid.structures import EncoderOutput


class ViewPromptTransformer(VisionTransformer):
    """Stage 1's encoder (SD-ReID, arXiv 2504.09549).

    Class token and patch tokens pass the blocks 1 ... L-1. The learnable view prompt, which has no position
    embedding and starts at zero, is put in front of them for the last block.

    Args:
        kwargs: as in `VisionTransformer`; at least 2 blocks.

    Attributes:
        num_id_tokens: L-1.
    """

    fewest_blocks = 2  # one before the view prompt

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_id_tokens = len(self.blocks) - 1
        self.view_prompt = nn.Parameter(torch.zeros(1, 1, self.feat_dim))

    def forward(self, images: torch.Tensor) -> EncoderOutput:
        """Encode (B, 3, H, W) float images, normalised, of the size given at construction."""
        tokens = self.embed(images)
        id_tokens = []
        for block in self.blocks[:-1]:
            tokens = block(tokens)
            id_tokens.append(tokens[:, 0])
        tokens = torch.cat([self.view_prompt.expand(images.shape[0], -1, -1), tokens], dim=1)
        tokens = self.blocks[-1](tokens)
        return EncoderOutput(self.norm(tokens[:, 1]), tokens[:, 0], torch.stack(id_tokens, dim=1))


@BACKBONE_REGISTRY.register()
def build_vit_backbone(cfg: CfgNode) -> ViewPromptTransformer:
    """Return SD-ReID's encoder, randomly initialised, from ``MODEL.BACKBONE`` for ``INPUT.SIZE_TRAIN``."""
    return build_vit(cfg, ViewPromptTransformer)
