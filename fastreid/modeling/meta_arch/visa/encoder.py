"""ViSA's encoder: VDT's with a view token for each view."""

from typing import Any

import torch
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.modeling.backbones import BACKBONE_REGISTRY, build_vit
from fastreid.modeling.meta_arch.local_feature import PatchOutput, PatchViewTokenTransformer
from fastreid.modeling.meta_arch.vdt import SUBTRACTION
from fastreid.utils.errors import UserError


class ViewTokensTransformer(PatchViewTokenTransformer):
    """A ViT with one of V view tokens behind the class token: that of the image's view.

    The view token is subtracted from the class token after the blocks 1 … L-1 and after the final norm.

    Args:
        num_views: V.
        kwargs: as in `PatchViewTokenTransformer`; at least 2 blocks.
    """

    fewest_blocks = 2  # one before the regions are taken

    def __init__(self, *args: Any, num_views: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_views = num_views
        self.view_token = nn.Parameter(torch.zeros(num_views, 1, self.feat_dim))

    def forward(self, images: Tensor, views: Tensor) -> PatchOutput:
        """Encode (B, 3, H, W) float images, normalised, of the views (B,) int64, less than V."""
        classes = self.cls_token.expand(images.shape[0], -1, -1)
        return self.encoded(self.embed(images, torch.cat([classes, self.view_token[views]], dim=1)))


@BACKBONE_REGISTRY.register(KEYS={"MODEL.BACKBONE": SUBTRACTION})
def build_view_tokens_vit_backbone(cfg: CfgNode) -> ViewTokensTransformer:
    """Return ViSA's encoder, randomly initialised, from ``MODEL.BACKBONE`` for ``INPUT.SIZE_TRAIN``.

    Raises:
        UserError: for another method, or sizes that contradict each other.
    """
    if "VIEW_NUM" not in cfg.MODEL.BACKBONE:
        raise UserError(
            "MODEL.BACKBONE.NAME build_view_tokens_vit_backbone is ViSA's alone", "name another backbone"
        )
    options = cfg.MODEL.BACKBONE
    # Where nobody knows, to count what the model costs, two do as well as any.
    num_views = options.VIEW_NUM or 2
    return build_vit(cfg, ViewTokensTransformer, subtracts_in_blocks=options.INNER_SUB, num_views=num_views)
