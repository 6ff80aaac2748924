"""The batches that loaders give and models take."""

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict, total=False):
    """B images with their labels; pictures without labels have ``images`` and ``img_paths`` alone."""

    images: Tensor
    """uint8 (B, 3, H, W) RGB, in channels-last memory."""
    targets: Tensor
    """int64 (B,): identities, 0 … N-1 in training."""
    camids: Tensor
    """int64 (B,): cameras."""
    viewids: Tensor
    """int64 (B,): views."""
    img_paths: list[str]
