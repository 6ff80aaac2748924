"""Pairs within a batch: who is positive or negative to whom, and the losses on all cosine similarities."""

import torch
import torch.nn.functional as F

FAR = 1e9  # stands for infinity where a masked entry must stay finite, so that its gradient is 0


def pair_masks(targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positives and negatives of every anchor, and the anchors that can be used.

    Args:
        targets: int64 (B,).

    Returns:
        positive (B, B) bool: same target, another sample; negative (B, B) bool: another target;
        usable (B,) float32: 1 where the anchor has at least one of each.
    """
    same = targets[:, None] == targets[None, :]
    positive = same & ~torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    usable = positive.any(dim=1) & ~same.all(dim=1)
    return positive, ~same, usable.float()


def mean_over_usable(losses: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Mean of the losses (B,) of usable anchors; 0, with zero gradients, when there is none."""
    return (losses * usable).sum() / usable.sum().clamp(min=1)


def circle(features: torch.Tensor, targets: torch.Tensor, margin: float, gamma: float) -> torch.Tensor:
    """Circle loss on pairs (Sun et al., CVPR 2020, eq. 6), a scalar in float32.

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
    similarity = _cosine(features)
    detached = similarity.detach()
    positive_logits = -gamma * (1 + margin - detached).clamp(min=0) * (similarity - 1 + margin)
    negative_logits = gamma * (detached + margin).clamp(min=0) * (similarity - margin)
    return _all_pairs(positive_logits, negative_logits, targets)


def cosface(features: torch.Tensor, targets: torch.Tensor, margin: float, gamma: float) -> torch.Tensor:
    """The additive-margin loss on pairs (Sun et al., CVPR 2020, eq. 1), a scalar in float32.

    log(1 + sum_n sum_p exp(gamma (s_n - s_p + m))) for every anchor that has positives p and negatives n, s
    being cosine similarities; the mean over these anchors. Arguments as for `circle`.
    """
    similarity = _cosine(features)
    return _all_pairs(-gamma * similarity, gamma * (similarity + margin), targets)


def _all_pairs(
    positive_logits: torch.Tensor, negative_logits: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    positive, negative, usable = pair_masks(targets)
    hard_positive = positive_logits.masked_fill(~positive, -FAR).logsumexp(dim=1)
    hard_negative = negative_logits.masked_fill(~negative, -FAR).logsumexp(dim=1)
    return mean_over_usable(F.softplus(hard_positive + hard_negative), usable)


def _cosine(features: torch.Tensor) -> torch.Tensor:
    with torch.autocast(features.device.type, enabled=False):
        normalized = F.normalize(features.float(), eps=1e-6)
        return normalized @ normalized.T


@torch.no_grad()
def feature_spread(features: torch.Tensor) -> torch.Tensor:
    """The standard deviation of (B, E) features over the batch, averaged over dimensions; 0-dim float32.

    Near zero, all images get one feature: the collapse that a soft-margin triplet loss stuck at log 2
    (0.693) hints at. A single image has spread 0.
    """
    return features.float().std(dim=0, correction=0).mean()
