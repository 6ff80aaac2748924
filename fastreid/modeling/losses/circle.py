"""The losses on all cosine similarities of a batch: circle loss, and its variant with an additive margin."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from fastreid.config import CfgNode, Key
from fastreid.modeling.heads import HeadOutput
from fastreid.modeling.losses.build import LOSS_REGISTRY
from fastreid.modeling.losses.pairwise import FAR, cosine_similarities, mean_over_usable, pair_masks


def circle(features: Tensor, targets: Tensor, margin: float, gamma: float) -> Tensor:
    """Return the circle loss on pairs (Sun et al., CVPR 2020, eq. 6), a scalar in float32.

    Every sample is an anchor with the cosine similarities s of its positives p and negatives n:
    log(1 + sum_n exp(gamma a_n (s_n - m)) * sum_p exp(-gamma a_p (s_p - 1 + m))) with the weights
    a_p = max(0, 1 + m - s_p) and a_n = max(0, s_n + m), through which no gradient flows. The mean is taken
    over anchors that have both.

    Args:
        features: (B, E), any scale.
        targets: int64 (B,).
        margin: m.
        gamma: scale of the similarities.
    """
    similarity = cosine_similarities(features)
    detached = similarity.detach()
    positive_logits = -gamma * (1 + margin - detached).clamp(min=0) * (similarity - 1 + margin)
    negative_logits = gamma * (detached + margin).clamp(min=0) * (similarity - margin)
    return _all_pairs(positive_logits, negative_logits, targets)


def cosface(features: Tensor, targets: Tensor, margin: float, gamma: float) -> Tensor:
    """Return the additive-margin loss on pairs (Sun et al., CVPR 2020, eq. 1), a scalar in float32.

    log(1 + sum_n sum_p exp(gamma (s_n - s_p + m))) for every anchor that has positives p and negatives n, s
    being cosine similarities; the mean over these anchors. Arguments as for `circle`.
    """
    similarity = cosine_similarities(features)
    return _all_pairs(-gamma * similarity, gamma * (similarity + margin), targets)


def _all_pairs(positive_logits: Tensor, negative_logits: Tensor, targets: Tensor) -> Tensor:
    positive, negative, usable = pair_masks(targets)
    hard_positive = positive_logits.masked_fill(~positive, -FAR).logsumexp(dim=1)
    hard_negative = negative_logits.masked_fill(~negative, -FAR).logsumexp(dim=1)
    return mean_over_usable(F.softplus(hard_positive + hard_negative), usable)


class _PairLoss:
    """A loss with a margin and a scale of the similarities, times a weight."""

    group: ClassVar[str]
    function: ClassVar[Callable]
    compares_pairs, needs_classifier = True, False

    def __init__(self, margin: float, gamma: float, scale: float) -> None:
        self.margin, self.gamma, self.scale = margin, gamma, scale

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        options = cfg.MODEL.LOSSES[cls.group]
        return {"margin": options.MARGIN, "gamma": options.GAMMA, "scale": options.SCALE}

    def __call__(self, output: HeadOutput, targets: Tensor) -> Tensor:
        return self.scale * type(self).function(output.features, targets, self.margin, self.gamma)


def _keys(group: str) -> dict[str, Any]:
    own = {
        "MARGIN": Key(0.25, "between positive and negative similarities"),
        "GAMMA": Key(128.0, "scale of the similarities"),
        "SCALE": Key(1.0, "weight of the loss"),
    }
    return {f"MODEL.LOSSES.{group}": own}


@LOSS_REGISTRY.register()
class CircleLoss(_PairLoss):
    """`circle` of the features, times a scale."""

    group, KEYS = "CIRCLE", _keys("CIRCLE")
    function, logged_as = staticmethod(circle), "loss_circle"


@LOSS_REGISTRY.register()
class Cosface(_PairLoss):
    """`cosface` of the features, times a scale."""

    group, KEYS = "COSFACE", _keys("COSFACE")
    function, logged_as = staticmethod(cosface), "loss_cosface"
