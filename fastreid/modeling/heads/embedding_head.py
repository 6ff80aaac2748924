"""The ReID head: reduction, BNNeck, classifier."""

from typing import NamedTuple

import torch
from torch import nn

from fastreid.config import CfgNode
from fastreid.modeling.heads.build import REID_HEADS_REGISTRY
from fastreid.modeling.heads.cls_layers import CLS_LAYER_REGISTRY
from fastreid.utils.errors import UserError, nearest_name
from fastreid.utils.logger import warn_once


class HeadOutput(NamedTuple):
    """What a head gives in training, all float32; B images, C classes, width E."""

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

    Raises:
        UserError: for a value of ``MODEL.HEADS`` that does not exist.
    """

    def __init__(self, cfg: CfgNode, feat_dim: int, num_classes: int) -> None:
        super().__init__()
        options = cfg.MODEL.HEADS
        _check_choice("POOL_LAYER", options.POOL_LAYER, ["Identity"])
        _check_choice("NECK_FEAT", options.NECK_FEAT, ["before", "after"])
        if num_classes < 1:
            raise ValueError(f"a head needs at least one class, got {num_classes}")
        embedding_dim = options.EMBEDDING_DIM or feat_dim
        self.metric_after_neck = options.NECK_FEAT == "after"
        self.reduction = nn.Identity()
        if options.EMBEDDING_DIM > 0:
            self.reduction = nn.Linear(feat_dim, embedding_dim, bias=False)
            nn.init.kaiming_normal_(self.reduction.weight, mode="fan_out")
        self.bottleneck = nn.Sequential()
        if options.WITH_BNNECK:
            self.bottleneck.append(_neck_norm(cfg, embedding_dim))
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_dim))
        nn.init.normal_(self.weight, std=0.01)
        self.cls_layer = CLS_LAYER_REGISTRY.get(options.CLS_LAYER)(options.SCALE, options.MARGIN)

    def forward(
        self, features: torch.Tensor, targets: torch.Tensor | None = None
    ) -> torch.Tensor | HeadOutput:
        """(B, feat_dim) features and, in training mode, int64 targets (B,).

        Returns:
            In eval mode the feature after the neck, (B, E) float32; in training mode a `HeadOutput`.
        """
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


def _neck_norm(cfg: CfgNode, width: int) -> nn.Module:
    name = cfg.MODEL.HEADS.NORM
    _check_choice("NORM", name, ["BN", "syncBN"])
    norm_class = nn.BatchNorm1d
    if name == "syncBN":
        if torch.cuda.is_available() and cfg.MODEL.DEVICE != "cpu":
            norm_class = nn.SyncBatchNorm
        else:
            warn_once(__name__, "MODEL.HEADS.NORM syncBN needs CUDA: using BN, with statistics per process")
    norm = norm_class(width)
    norm.bias.requires_grad_(False)
    return norm


def _check_choice(key: str, value: str, known: list[str]) -> None:
    if value not in known:
        raise UserError(
            f"unknown MODEL.HEADS.{key} {value!r}.{nearest_name(value, known)} Known: {', '.join(known)}"
        )
