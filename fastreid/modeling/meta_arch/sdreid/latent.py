"""The person feature as the latent of a diffusion model, and back (SD-ReID, Stage 2)."""

import math

import torch
from torch import Tensor, nn

from fastreid.utils.errors import UserError

LATENT_CHANNELS = 4


def latent_shape(dim: int) -> tuple[int, int, int]:
    """``(4, h, w)`` with 4hw = `dim`, as square as possible and h >= w: 768 gives (4, 16, 12).

    Raises:
        UserError: if `dim` is no multiple of 4 or the only split is a strip of width 1.
    """
    pixels, remainder = divmod(dim, LATENT_CHANNELS)
    width = next((w for w in range(math.isqrt(pixels), 0, -1) if pixels % w == 0), 0)
    if remainder or width < 2:
        raise UserError(
            f"MODEL.BACKBONE.FEAT_DIM {dim} cannot be reshaped to a latent of 4 x h x w with h, w >= 2",
            "use a width such as 128, 192, 384, 768 or 1024",
        )
    return LATENT_CHANNELS, pixels // width, width


class LatentCodec(nn.Module):
    """Reshapes features (B, D) to latents (B, 4, h, w), after standardising each dimension if fitted.

    Unfitted, mean 0 and standard deviation 1 leave the feature as it is, which is what the paper does.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shape = latent_shape(dim)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Set the statistics (D,) that :meth:`encode` removes and :meth:`decode` puts back."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp(min=1e-6))

    def encode(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.std).unflatten(1, self.shape)

    def decode(self, latents: Tensor) -> Tensor:
        return latents.flatten(1) * self.std + self.mean
