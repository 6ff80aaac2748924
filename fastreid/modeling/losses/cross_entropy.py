"""Cross-entropy with fixed or adaptive label smoothing."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from fastreid.config import CfgNode, Key, Range
from fastreid.modeling.heads import HeadOutput
from fastreid.modeling.losses.build import LOSS_REGISTRY


def cross_entropy(logits: Tensor, targets: Tensor, epsilon: float = 0.0, alpha: float = 0.2) -> Tensor:
    """Return the mean cross-entropy in float32.

    With smoothing e the target distribution is (1 - e) on the target plus e / C on each of the C classes
    (Szegedy et al., CVPR 2016, sec. 7). A negative `epsilon` makes it adaptive: sample i gets
    e_i = alpha * p_i, p_i being the probability that the model now gives its target (no gradient flows
    through p_i). So an untrained model sees hard labels, and the more certain it gets the more is smoothed.

    Args:
        logits: (B, C).
        targets: int64 (B,).
        epsilon: the fixed smoothing in [0, 1), or negative for adaptive.
        alpha: the adaptive smoothing of a sample that the model is certain of.
    """
    log_probs = F.log_softmax(logits.float(), dim=1)
    log_target = log_probs.gather(1, targets[:, None]).squeeze(1)
    smoothing = alpha * log_target.detach().exp() if epsilon < 0 else epsilon
    return -((1 - smoothing) * log_target + smoothing * log_probs.mean(dim=1)).mean()


@LOSS_REGISTRY.register()
class CrossEntropyLoss:
    """`cross_entropy` of the logits, times a scale."""

    KEYS: ClassVar[dict] = {
        "MODEL.LOSSES.CE": {
            "EPSILON": Key(0.0, "label smoothing; -1 = adaptive", Range(lambda v: v <= 1, "at most 1")),
            "ALPHA": Key(0.2, "strength of the adaptive smoothing"),
            "SCALE": Key(1.0, "weight of the loss"),
        }
    }
    logged_as, compares_pairs, needs_classifier = "loss_cls", False, True

    def __init__(self, epsilon: float = 0.0, alpha: float = 0.2, scale: float = 1.0) -> None:
        self.epsilon, self.alpha, self.scale = epsilon, alpha, scale

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        options = cfg.MODEL.LOSSES.CE
        return {"epsilon": options.EPSILON, "alpha": options.ALPHA, "scale": options.SCALE}

    def __call__(self, output: HeadOutput, targets: Tensor) -> Tensor:
        return self.scale * cross_entropy(output.logits, targets, self.epsilon, self.alpha)
