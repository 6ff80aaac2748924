"""Preprocessing and augmentation of uint8 (3, H, W) RGB tensors, with torchvision's v2 transforms.

Normalisation is not here: batches stay uint8 until they are on the device.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from fastreid.config import CfgNode
from fastreid.utils.errors import UserError

Transform = Callable[[torch.Tensor], torch.Tensor]


def build_transforms(cfg: CfgNode, is_train: bool) -> Transform:
    """Make the transform of training images (resize and ``INPUT``'s augmentations) or test images (resize).

    It takes and gives uint8 (3, H, W) tensors; the result has ``INPUT.SIZE_TRAIN`` or ``SIZE_TEST``. Its
    randomness comes from torch's global generator.

    Raises:
        UserError: for a padding as large as the image.
    """
    if not is_train:
        return resize(cfg.INPUT.SIZE_TEST)
    if cfg.INPUT.PADDING.ENABLED and cfg.INPUT.PADDING.SIZE >= min(cfg.INPUT.SIZE_TRAIN):
        raise UserError(
            f"INPUT.PADDING.SIZE is {cfg.INPUT.PADDING.SIZE}; it must be less than the sides of"
            f" INPUT.SIZE_TRAIN {list(cfg.INPUT.SIZE_TRAIN)}"
        )
    return v2.Compose([resize(cfg.INPUT.SIZE_TRAIN), *_build_augmentations(cfg)])


def resize(size: Sequence[int]) -> Transform:
    """Make the transform that gives images the size (height, width)."""
    return v2.Resize(list(size), InterpolationMode.BICUBIC, antialias=True)


class PadAndRandomCrop:
    """Pad a (3, H, W) image by `padding` pixels on every side, then crop H x W at a random place of it.

    Padding with a constant (black) is done as what it comes to: the image is moved by -padding … padding
    pixels along each side. That is four times as fast and keeps the memory format.
    """

    def __init__(self, padding: int, mode: str = "constant") -> None:
        self.padding = padding
        self.mode = mode

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        top, left = torch.randint(2 * self.padding + 1, (2,)).tolist()
        if self.mode != "constant":
            padded = functional.pad(image, [self.padding], padding_mode=self.mode)
            return padded[:, top : top + height, left : left + width]
        down, right = self.padding - top, self.padding - left
        moved = torch.zeros_like(image)
        rows, columns = _overlap(height, down), _overlap(width, right)
        moved[:, rows[0], columns[0]] = image[:, rows[1], columns[1]]
        return moved


def _overlap(length: int, shift: int) -> tuple[slice, slice]:
    """Find where a line of `length` pixels lies after a shift, and which of its pixels are still in sight."""
    return (
        slice(max(shift, 0), max(length + min(shift, 0), 0)),
        slice(max(-shift, 0), max(length - max(shift, 0), 0)),
    )


def _build_augmentations(cfg: CfgNode) -> list[Transform]:
    flip, padding, jitter, erasing = cfg.INPUT.FLIP, cfg.INPUT.PADDING, cfg.INPUT.CJ, cfg.INPUT.REA
    steps: list[Transform] = []
    if padding.ENABLED:
        crop = PadAndRandomCrop(padding.SIZE, padding.MODE)
        steps.append(crop if padding.PROB == 1 else v2.RandomApply([crop], padding.PROB))
    if flip.ENABLED:
        steps.append(v2.RandomHorizontalFlip(flip.PROB))
    if jitter.ENABLED:
        color = v2.ColorJitter(jitter.BRIGHTNESS, jitter.CONTRAST, jitter.SATURATION, jitter.HUE)
        steps.append(v2.RandomApply([color], jitter.PROB))
    if erasing.ENABLED:
        value = [round(channel) for channel in erasing.VALUE]  # or uint8 would cut the fraction off
        steps.append(v2.RandomErasing(erasing.PROB, (0.02, 0.33), (0.3, 3.3), value, inplace=True))
    return steps


def augmentation_seed(seed: int, draw: int) -> int:
    """Derive the 32-bit seed of the augmentation of the `draw`-th sample of a run with that seed."""
    digest = hashlib.blake2b(f"{seed} {draw}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def mirror_decisions(cfg: CfgNode, numbers: Sequence[int]) -> torch.Tensor:
    """Tell, by the numbers of the draws, whether the training transform mirrors an image: (N,) bool.

    Only for an ``INPUT`` whose sole augmentation is the flip: it takes one uniform number. The global
    generator is left alone, so that another thread may ask.
    """
    generator, uniform = torch.Generator(), torch.empty(len(numbers))
    for own, number in zip(uniform.split(1), numbers, strict=True):
        own.uniform_(generator=generator.manual_seed(augmentation_seed(cfg.MODEL.SEED, number)))
    return uniform < (cfg.INPUT.FLIP.PROB if cfg.INPUT.FLIP.ENABLED else 0)


@contextmanager
def seeded_rng(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block; afterwards it is where it was before."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
