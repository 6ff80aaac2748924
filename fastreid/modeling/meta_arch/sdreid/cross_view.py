"""The choice of another image of its identity that each image of a batch learns to generate."""

import torch
from torch import Tensor


def cross_view_targets(targets: Tensor, views: Tensor, images: Tensor) -> Tensor:
    """Draw for each image another one of the same identity: first a view at random, then an image of it.

    An image that is alone of its identity in the batch, be it there several times, is its own target.

    Args:
        targets: (B,) identities.
        views: (B,) view ids.
        images: (B,) numbers that are equal for the same image.

    Returns:
        (B,) int64 indices into the batch.
    """
    same_identity = (targets[:, None] == targets).float()
    candidates = same_identity * (images[:, None] != images).float()
    same_view = (views[:, None] == views).float()
    # Divided by the number of candidates in the same view: every view gets the same total weight.
    weights = candidates / (candidates @ same_view).clamp(min=1)
    alone = candidates.sum(1) == 0
    return torch.multinomial(weights + torch.diag_embed(alone.float()), 1)[:, 0]
