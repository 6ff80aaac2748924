"""Images to patch tokens."""

import torch
from torch import nn

STEM_STRIDE = 4  # of the three convolutions together, in pixels


class PatchEmbed(nn.Module):
    """A strided convolution, optionally behind a small convolutional stem.

    A stride below the patch size makes the patches overlap (TransReID, He et al., ICCV 2021, sec. 3.1). The
    stem is three 3x3 convolutions with batch norm and ReLU, strides 2, 2, 1; the projection then covers the
    same patch and stride at a quarter of the resolution (cf. Xiao et al., "Early Convolutions Help
    Transformers See Better", NeurIPS 2021).

    Args:
        image_size: (height, width) in pixels.
        patch_size: side of the square patches, in pixels; with a stem a multiple of 4.
        stride: (vertical, horizontal) distance of the patches, in pixels; with a stem multiples of 4.
        width: D, the width of the tokens.
        conv_stem: whether to build the stem.

    Raises:
        ValueError: if no patch fits into the image, or patch size and stride do not suit the stem.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        patch_size: int,
        stride: tuple[int, int],
        width: int,
        conv_stem: bool = False,
    ) -> None:
        super().__init__()
        reduction = STEM_STRIDE if conv_stem else 1
        if any(pixels % reduction for pixels in (patch_size, *stride)):
            raise ValueError(
                f"with a convolutional stem, patch size {patch_size} and stride {stride} must be"
                f" multiples of {STEM_STRIDE}"
            )
        if min(image_size) < patch_size:
            raise ValueError(f"a patch of {patch_size} pixels does not fit into an image of {image_size}")
        self.image_size = image_size
        self.reduction = reduction
        self.stem = _conv_stem(width // 2) if conv_stem else nn.Identity()
        self.proj = nn.Conv2d(
            width // 2 if conv_stem else 3,
            width,
            kernel_size=patch_size // reduction,
            stride=tuple(pixels // reduction for pixels in stride),
        )
        self.grid_size = self.grid_of(image_size)

    def grid_of(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The (rows, columns) of patches that an image of (height, width) gives."""
        sides = zip(image_size, self.proj.kernel_size, self.proj.stride, strict=True)
        return tuple((-(-size // self.reduction) - kernel) // stride + 1 for size, kernel, stride in sides)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float -> (B, N, D), row by row."""
        return self.proj(self.stem(images)).flatten(2).transpose(1, 2)


def _conv_stem(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = [3, max(width // 4, 8), max(width // 2, 8), width]
    for inputs, outputs, stride in zip(channels, channels[1:], (2, 2, 1), strict=False):
        layers += [
            nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
