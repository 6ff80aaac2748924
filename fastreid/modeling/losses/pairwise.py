"""Pairs within a batch: who is positive or negative to whom."""

import torch
import torch.nn.functional as F

FAR = 1e9  # stands for infinity where a masked entry must stay finite, so that its gradient is 0


def pair_masks(targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the positives and negatives of every anchor, and the anchors that can be used.

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


def cosine_similarities(features: torch.Tensor) -> torch.Tensor:
    """Return the cosines (B, B) float32 of (B, E) features."""
    with torch.autocast(features.device.type, enabled=False):
        normalized = F.normalize(features.float(), eps=1e-6)
        return normalized @ normalized.T


def mean_over_usable(losses: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Return the mean of the losses (B,) of usable anchors; 0, with zero gradients, when there is none."""
    return (losses * usable).sum() / usable.sum().clamp(min=1)


@torch.no_grad()
def feature_spread(features: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of (B, E) features over the batch, averaged over dimensions; a scalar.

    Near zero, all images get one feature: the collapse that a soft-margin triplet loss stuck at log 2
    (0.693) hints at. A single image has spread 0.
    """
    return features.float().std(dim=0, correction=0).mean()
