"""Batches, and what an encoder makes of them."""

from typing import NamedTuple, TypedDict

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


class EncoderOutput(NamedTuple):
    """The outputs of a ViT encoder with a view prompt for B images; L blocks, width D."""

    features: Tensor
    """(B, D): the class token after the final norm, the person representation."""
    view_token: Tensor
    """(B, D): the view prompt's output before the final norm, the view condition."""
    id_tokens: Tensor
    """(B, L-1, D): the class token after each of the blocks 1 ... L-1, the identity conditions."""
