"""Classification layers: from features and class weights to logits.

A layer is made of scale and margin, keeps `scale`, and has no parameters; the class weights are the head's.
With x a feature, w_j the weight of class j, cos_j the cosine of the two, theta_j its angle, y the target, s
the scale and m the margin, each docstring gives the logits that the loss sees in training.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from fastreid.utils.registry import Registry, requiring

CLS_LAYER_REGISTRY = Registry(
    "classification layer",
    "MODEL.HEADS.CLS_LAYER",
    requiring("similarity", see="fastreid/modeling/heads/cls_layers.py"),
)


@CLS_LAYER_REGISTRY.register()
class Linear(nn.Module):
    """s * x w_j; the margin plays no part."""

    def __init__(self, scale: float, margin: float) -> None:
        super().__init__()
        self.scale = scale
        self.margin = margin

    def similarity(self, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(B, E) and (C, E) -> (B, C), before scale and margin."""
        return F.linear(features, weight)

    def forward(self, similarity: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) for the loss, from `similarity` (B, C) and int64 `targets` (B,)."""
        return self.scale * similarity

    def extra_repr(self) -> str:
        return f"scale={self.scale}, margin={self.margin}"


class _Cosine(Linear):
    def similarity(self, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.linear(F.normalize(features), F.normalize(weight))


@CLS_LAYER_REGISTRY.register()
class CosSoftmax(_Cosine):
    """s * (cos_y - m) for the target, s * cos_j elsewhere (CosFace, Wang et al., CVPR 2018, eq. 4)."""

    def forward(self, similarity: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.scale * (similarity - self.margin * _one_hot(similarity, targets))


@CLS_LAYER_REGISTRY.register()
class ArcSoftmax(_Cosine):
    """s * cos(theta_y + m) for the target, s * cos_j elsewhere (ArcFace, Deng et al., CVPR 2019, eq. 3).

    Beyond theta_y = pi - m the cosine would rise again; there the target's logit is
    s * (cos_y - m sin m), which keeps falling.
    """

    def forward(self, similarity: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        cosine = similarity.gather(1, targets[:, None])
        # The sine's slope is infinite where the angle is 0 or pi; the clamp makes it 0 there.
        sine = (1.0 - cosine.square()).clamp(min=1e-7).sqrt()
        with_margin = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        fallback = cosine - self.margin * math.sin(self.margin)
        target = torch.where(cosine > -math.cos(self.margin), with_margin, fallback)
        return self.scale * similarity.scatter(1, targets[:, None], target)


@CLS_LAYER_REGISTRY.register()
class CircleSoftmax(_Cosine):
    """Circle loss with class labels (Sun et al., CVPR 2020, sec. 3.3), the target being the one positive.

    s * a_p * (cos_y - (1 - m)) with a_p = max(0, 1 + m - cos_y) for the target,
    s * a_n * (cos_j - m) with a_n = max(0, cos_j + m) elsewhere; no gradient through a_p and a_n.
    """

    def forward(self, similarity: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        detached = similarity.detach()
        positive = (1 + self.margin - detached).clamp(min=0) * (similarity - (1 - self.margin))
        negative = (detached + self.margin).clamp(min=0) * (similarity - self.margin)
        return self.scale * torch.where(_one_hot(similarity, targets).bool(), positive, negative)


def _one_hot(similarity: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(similarity).scatter(1, targets[:, None], 1.0)
