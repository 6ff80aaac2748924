"""Preprocessing and augmentation of uint8 (3, H, W) RGB tensors, with torchvision's v2 transforms.

Normalisation is not here: batches stay uint8 until they are on the device.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torchvision.transforms import InterpolationMode, v2

from fastreid.config import CfgNode
from fastreid.utils.errors import UserError

PADDING_MODES = ("constant", "edge", "reflect", "symmetric")
# Area and aspect ratio of the erased rectangle: Zhong et al., Random Erasing, AAAI 2020, section 4.
ERASED_AREA = (0.02, 0.4)
ERASED_RATIO = (0.3, 1 / 0.3)


def build_transforms(cfg: CfgNode, is_train: bool) -> v2.Transform:
    """The transform of training images (resize and ``INPUT``'s augmentations) or test images (resize).

    It takes and gives uint8 (3, H, W) tensors; the result has ``INPUT.SIZE_TRAIN`` or ``SIZE_TEST``. Its
    randomness comes from torch's global generator.

    Raises:
        UserError: for a value of ``INPUT`` outside its range.
    """
    _check_input(cfg)
    size = list(cfg.INPUT.SIZE_TRAIN if is_train else cfg.INPUT.SIZE_TEST)
    steps: list[v2.Transform] = [v2.Resize(size, InterpolationMode.BICUBIC, antialias=True)]
    if is_train:
        steps += _augmentations(cfg, size)
    return v2.Compose(steps) if len(steps) > 1 else steps[0]


def _augmentations(cfg: CfgNode, size: list[int]) -> list[v2.Transform]:
    flip, padding, jitter, erasing = cfg.INPUT.FLIP, cfg.INPUT.PADDING, cfg.INPUT.CJ, cfg.INPUT.REA
    steps: list[v2.Transform] = []
    if flip.ENABLED:
        steps.append(v2.RandomHorizontalFlip(flip.PROB))
    if padding.ENABLED:
        crop = v2.RandomCrop(size, padding=padding.SIZE, padding_mode=padding.MODE)
        steps.append(crop if padding.PROB == 1 else v2.RandomApply([crop], padding.PROB))
    if jitter.ENABLED:
        color = v2.ColorJitter(jitter.BRIGHTNESS, jitter.CONTRAST, jitter.SATURATION, jitter.HUE)
        steps.append(v2.RandomApply([color], jitter.PROB))
    if erasing.ENABLED:
        value = [float(round(channel)) for channel in erasing.VALUE]
        steps.append(v2.RandomErasing(erasing.PROB, ERASED_AREA, ERASED_RATIO, value))
    return steps


def _check_input(cfg: CfgNode) -> None:
    for key in ("SIZE_TRAIN", "SIZE_TEST"):
        size = cfg.INPUT[key]
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise UserError(f"INPUT.{key} {size}: expected [height, width] in pixels, such as [256, 128]")
    for key in ("FLIP", "PADDING", "REA", "CJ"):
        if not 0 <= cfg.INPUT[key].PROB <= 1:
            raise UserError(f"INPUT.{key}.PROB {cfg.INPUT[key].PROB}: expected a probability from 0 to 1")
    if cfg.INPUT.PADDING.MODE not in PADDING_MODES:
        raise UserError(f"INPUT.PADDING.MODE {cfg.INPUT.PADDING.MODE!r}: expected {', '.join(PADDING_MODES)}")
    if not 0 <= cfg.INPUT.PADDING.SIZE < min(cfg.INPUT.SIZE_TRAIN):
        raise UserError(
            f"INPUT.PADDING.SIZE {cfg.INPUT.PADDING.SIZE}: expected 0 or more pixels, and fewer than the"
            f" sides of INPUT.SIZE_TRAIN {cfg.INPUT.SIZE_TRAIN}"
        )
    value = cfg.INPUT.REA.VALUE
    if len(value) != 3 or not all(0 <= channel <= 255 for channel in value):
        raise UserError(f"INPUT.REA.VALUE {value}: expected three numbers (RGB) from 0 to 255")
    for key in ("BRIGHTNESS", "CONTRAST", "SATURATION", "HUE"):
        limit = 0.5 if key == "HUE" else float("inf")
        if not 0 <= cfg.INPUT.CJ[key] <= limit:
            raise UserError(f"INPUT.CJ.{key} {cfg.INPUT.CJ[key]}: expected a number from 0 to {limit}")


def augmentation_seed(seed: int, draw: int) -> int:
    """The 32-bit seed of the augmentation of the `draw`-th sample of a run with ``MODEL.SEED`` `seed`."""
    digest = hashlib.blake2b(f"{seed} {draw}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


@contextmanager
def seeded_rng(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block; afterwards it is where it was before."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
