"""The ReID head: reduction, BNNeck, classifier."""

from typing import Any, NamedTuple

import torch
from torch import nn

from fastreid.config import CfgNode
from fastreid.modeling.heads.build import REID_HEADS_REGISTRY
from fastreid.modeling.heads.cls_layers import CLS_LAYER_REGISTRY, Linear
from fastreid.utils.env import resolve_device
from fastreid.utils.errors import UserError
from fastreid.utils.logger import warn_once


class HeadOutput(NamedTuple):
    """The outputs of a head in training, all float32; B images, C classes, width E."""

    logits: torch.Tensor
    """(B, C): for the loss, with scale and margin."""
    scores: torch.Tensor
    """(B, C): with scale, without margin; for accuracy."""
    features: torch.Tensor
    """(B, E): for metric losses; from before or after the neck by ``MODEL.HEADS.NECK_FEAT``."""


@REID_HEADS_REGISTRY.register()
class EmbeddingHead(nn.Module):
    """Optional linear reduction, BNNeck and a classifier without bias.

    The neck is batch norm whose bias stays at zero (BNNeck: Luo et al., "Bag of Tricks and A Strong Baseline
    for Deep Person Re-identification", CVPRW 2019, sec. 3.5). Names in the state dict: ``reduction.weight``
    where there is one, ``bottleneck.0.*``, ``weight`` (C, E). Everything is computed in float32.

    Args:
        feat_dim: width of the features that it is given.
        num_classes: C.
        embedding_dim: E, where a reduction gives it; 0: `feat_dim`, without one.
        with_bnneck: have a neck.
        synced: let the neck's statistics be those of all ranks (CUDA only).
        metric_after_neck: give the feature after the neck to metric losses.
        cls_layer: makes logits of features and class weights, see `cls_layers`.

    Attributes:
        embedding_dim: E.
    """

    def __init__(
        self,
        feat_dim: int,
        num_classes: int,
        embedding_dim: int = 0,
        with_bnneck: bool = True,
        synced: bool = False,
        metric_after_neck: bool = False,
        cls_layer: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"a head needs at least one class, got {num_classes}")
        self.feat_dim = feat_dim
        self.embedding_dim = embedding_dim or feat_dim
        self.metric_after_neck = metric_after_neck
        self.reduction = nn.Identity()
        if embedding_dim > 0:
            self.reduction = nn.Linear(feat_dim, embedding_dim, bias=False)
            nn.init.kaiming_normal_(self.reduction.weight, mode="fan_out")
        self.bottleneck = nn.Sequential()
        if with_bnneck:
            norm = (nn.SyncBatchNorm if synced else nn.BatchNorm1d)(self.embedding_dim)
            norm.bias.requires_grad_(False)
            self.bottleneck.append(norm)
        self.weight = nn.Parameter(torch.empty(num_classes, self.embedding_dim))
        nn.init.normal_(self.weight, std=0.01)
        self.cls_layer = Linear(1.0, 0.0) if cls_layer is None else cls_layer

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments that ``MODEL.HEADS`` gives.

        Raises:
            UserError: for an unknown classification layer.
        """
        options = cfg.MODEL.HEADS
        synced = options.NORM == "syncBN" and resolve_device(cfg.MODEL.DEVICE).type == "cuda"
        if options.NORM == "syncBN" and not synced:
            warn_once(__name__, "MODEL.HEADS.NORM syncBN needs CUDA: using BN, with statistics per process")
        return {
            "embedding_dim": options.EMBEDDING_DIM,
            "with_bnneck": options.WITH_BNNECK,
            "synced": synced,
            "metric_after_neck": options.NECK_FEAT == "after",
            "cls_layer": CLS_LAYER_REGISTRY.get(options.CLS_LAYER)(options.SCALE, options.MARGIN),
        }

    def forward(
        self, features: torch.Tensor, targets: torch.Tensor | None = None
    ) -> torch.Tensor | HeadOutput:
        """Map (B, feat_dim) features and, in training mode, int64 targets (B,).

        Returns:
            In eval mode the feature after the neck, (B, E) float32; in training mode a `HeadOutput`.

        Raises:
            UserError: if the features are of another width.
        """
        if features.shape[1] != self.feat_dim:
            raise UserError(
                f"the head is made for features of {self.feat_dim} numbers and gets {features.shape[1]}",
                "let the feat_dim of the backbone be the width of what it gives",
            )
        with torch.autocast(features.device.type, enabled=False):
            before = self.reduction(features.float())
            after = self.bottleneck(before)
            if not self.training:
                return after
            if targets is None:
                raise ValueError("a head in training mode needs targets")
            similarity = self.cls_layer.similarity(after, self.weight)
            return HeadOutput(
                logits=self.cls_layer(similarity, targets),
                scores=self.cls_layer.scale * similarity.detach(),
                features=after if self.metric_after_neck else before,
            )
