"""Triplet loss with the mining inside the batch."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from fastreid.config import NOT_NEGATIVE, CfgNode, Key
from fastreid.modeling.heads import HeadOutput
from fastreid.modeling.losses.build import LOSS_REGISTRY
from fastreid.modeling.losses.pairwise import FAR, cosine_similarities, mean_over_usable, pair_masks


def triplet(
    features: torch.Tensor,
    targets: torch.Tensor,
    margin: float = 0.0,
    norm_feat: bool = False,
    hard_mining: bool = True,
) -> torch.Tensor:
    """Return the triplet loss with every sample as an anchor, a scalar in float32.

    Hard mining takes each anchor's farthest positive and nearest negative (Hermans et al., "In Defense of
    the Triplet Loss", 2017, eq. 5). Otherwise the two distances are averages, with softmax(d) as the
    positives' weights and softmax(-d) as the negatives' (Ristani and Tomasi, CVPR 2018); gradients
    flow through the weights. The loss is max(0, d_p - d_n + margin), or, for margin 0, the soft margin
    log(1 + exp(d_p - d_n)). Anchors without a positive or without a negative do not count; a batch without
    any usable anchor gives 0 with zero gradients.

    Args:
        features: (B, E).
        targets: int64 (B,).
        margin: at least 0; 0 means the soft margin.
        norm_feat: use 2 - 2 cosine, the squared distance of features scaled to length 1, as fast-reid does,
            instead of the Euclidean distance.
        hard_mining: hardest pairs, or weighted averages.

    Raises:
        ValueError: for a negative margin.
    """
    if margin < 0:
        raise ValueError(f"the triplet margin must not be negative: {margin}")
    distance = _distance_matrix(features, norm_feat)
    positive, negative, usable = pair_masks(targets)
    if hard_mining:
        to_positive = distance.masked_fill(~positive, -FAR).amax(dim=1)
        to_negative = distance.masked_fill(~negative, FAR).amin(dim=1)
    else:
        to_positive = _weighted_mean(distance, distance, positive)
        to_negative = _weighted_mean(distance, -distance, negative)
    gap = to_positive - to_negative
    losses = F.relu(gap + margin) if margin > 0 else F.softplus(gap)
    return mean_over_usable(losses, usable)


@LOSS_REGISTRY.register()
class TripletLoss:
    """`triplet` of the features, times a scale."""

    KEYS: ClassVar[dict] = {
        "MODEL.LOSSES.TRI": {
            "MARGIN": Key(0.0, "0 = soft margin", NOT_NEGATIVE),
            "NORM_FEAT": Key(False, "2 - 2 cosine instead of the Euclidean distance"),
            "HARD_MINING": Key(True, "False = softmax-weighted positives and negatives"),
            "SCALE": Key(1.0, "weight of the loss"),
        }
    }
    logged_as, compares_pairs, needs_classifier = "loss_triplet", True, False

    def __init__(self, margin: float, norm_feat: bool, hard_mining: bool, scale: float) -> None:
        self.margin, self.norm_feat, self.hard_mining, self.scale = margin, norm_feat, hard_mining, scale

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        options = cfg.MODEL.LOSSES.TRI
        return {
            "margin": options.MARGIN,
            "norm_feat": options.NORM_FEAT,
            "hard_mining": options.HARD_MINING,
            "scale": options.SCALE,
        }

    def __call__(self, output: HeadOutput, targets: torch.Tensor) -> torch.Tensor:
        loss = triplet(output.features, targets, self.margin, self.norm_feat, self.hard_mining)
        return self.scale * loss


def _distance_matrix(features: torch.Tensor, norm_feat: bool) -> torch.Tensor:
    """(B, E) -> (B, B) float32: 2 - 2 cosine, or Euclidean with a gradient of 0 where the distance is 0."""
    if norm_feat:
        return 2 - 2 * cosine_similarities(features)
    with torch.autocast(features.device.type, enabled=False):
        features = features.float()
        # Distances do not change with the origin; at the batch's centre the squares lose the least precision.
        features = features - features.detach().mean(dim=0)
        squares = features.square().sum(dim=1)
        squared = squares[:, None] + squares[None, :] - 2 * features @ features.T
        return squared.clamp(min=1e-12).sqrt()


def _weighted_mean(distance: torch.Tensor, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = scores.masked_fill(~mask, -FAR).softmax(dim=1)
    return (weights * distance).sum(dim=1)
