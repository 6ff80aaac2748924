"""Pictures from files and from memory, as the model's test loader gives them."""

import os
from collections.abc import Iterable
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch
from PIL import Image

from fastreid.config import CfgNode
from fastreid.data.image_set import ReportingSet
from fastreid.data.images import decode_image, read_image, upright_rgb
from fastreid.data.transforms import build_transforms
from fastreid.utils.errors import UserError

Picture: TypeAlias = str | os.PathLike | bytes | BinaryIO | Image.Image | np.ndarray | torch.Tensor

EXPECTED = (
    "expected a path, the bytes of a picture file, a binary file object, a PIL image, an array (H, W, 3) or"
    " grey (H, W), or a tensor (3, H, W), of uint8 or of floats from 0 to 1"
)
WAY_OUT = ", or leave it out (skip_bad=True, tools/extract_features.py --skip-bad: a row of NaN)"


def as_pictures(pictures: Picture | Iterable[Picture]) -> list[Picture]:
    """Return one picture or several, always as a list; a 4-dimensional array or tensor is several."""
    if isinstance(pictures, str | os.PathLike | bytes | Image.Image) or hasattr(pictures, "read"):
        return [pictures]
    if isinstance(pictures, np.ndarray | torch.Tensor) and pictures.ndim in (2, 3):
        return [pictures]
    if not isinstance(pictures, Iterable):
        raise UserError(f"cannot read a picture from a {type(pictures).__name__}: {EXPECTED}")
    return list(pictures)


def picture_name(picture: Picture) -> str:
    """Return the path of a file, also of an open one or one that PIL opened; empty for what has none."""
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    name = getattr(picture, "filename" if isinstance(picture, Image.Image) else "name", "")
    return os.fspath(name) if isinstance(name, str | os.PathLike) else ""


def to_pixels(picture: Picture, size: tuple[int, int]) -> torch.Tensor:
    """Return uint8 (3, H, W), RGB, upright, in channels-last memory, as `read_image` gives files.

    Args:
        size: (height, width) that the picture will be resized to; a JPEG file may be decoded smaller.

    Raises:
        UserError: for a file that cannot be read, or another type, shape or range than `EXPECTED`.
    """
    if isinstance(picture, str | os.PathLike):
        return read_image(os.fspath(picture), size)
    if isinstance(picture, bytes):
        return decode_image(picture, size)
    if hasattr(picture, "read"):
        return decode_image(_content(picture), size)
    if isinstance(picture, Image.Image):
        try:
            picture = np.array(upright_rgb(picture.copy()))
        except OSError as error:
            raise UserError(f"cannot decode a PIL image: {error}", "give another picture") from error
    if isinstance(picture, np.ndarray):
        return _array_pixels(picture)
    if isinstance(picture, torch.Tensor):
        return _tensor_pixels(picture.detach().cpu())
    raise UserError(f"cannot read a picture from a {type(picture).__name__}: {EXPECTED}")


def _content(file: BinaryIO) -> bytes:
    """Read a file object from its beginning, or, where it cannot go back, from where it is."""
    try:
        if file.seekable():
            file.seek(0)
        content = file.read()
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise UserError(f"cannot read a picture from a file object: {error}") from error
    if not isinstance(content, bytes):
        raise UserError("cannot read a picture from a file object of text", 'open it with mode "rb"')
    return content


def _array_pixels(picture: np.ndarray) -> torch.Tensor:
    grey, floats = picture.ndim == 2, np.issubdtype(picture.dtype, np.floating)
    coloured = picture.ndim == 3 and picture.shape[2] == 3
    if not (grey or coloured) or not picture.size or not (floats or picture.dtype == np.uint8):
        raise UserError(f"an array of {picture.dtype} {picture.shape} is no picture: {EXPECTED}")
    pixels = np.repeat(picture[..., None], 3, axis=2) if grey else picture
    # torch takes neither read-only arrays nor ones that run backwards in memory, such as BGR[..., ::-1]
    pixels = np.array(pixels, np.float32 if floats else np.uint8, order="C")
    return _tensor_pixels(torch.from_numpy(pixels).permute(2, 0, 1))


def _tensor_pixels(picture: torch.Tensor) -> torch.Tensor:
    if picture.ndim != 3 or picture.shape[0] != 3 or not picture.numel():
        raise UserError(f"a tensor of shape {tuple(picture.shape)} is no picture: {EXPECTED}")
    if picture.is_floating_point():
        picture = picture.float()
        if not (picture.min() >= 0 and picture.max() <= 1):
            low, high = picture.min().item(), picture.max().item()
            raise UserError(f"floats from {low:g} to {high:g} are no picture: {EXPECTED}")
        picture = (picture * 255).round().to(torch.uint8)
    if picture.dtype != torch.uint8:
        raise UserError(f"a tensor of {picture.dtype} is no picture: {EXPECTED}")
    return picture.permute(1, 2, 0).contiguous().permute(2, 0, 1)


class PictureSet(ReportingSet):
    """Pictures resized for the model: dicts of ``images`` uint8 (3, H, W) and ``img_paths`` str.

    Args:
        pictures: as `as_pictures` gives them.
        skip_bad: let a grey picture stand in for one that cannot be read, and name it in ``bad_images``.
        labels: of each picture by their name in a batch, such as ``camids``.

    Attributes:
        replaced: path -> how often a grey picture stood in for it, as the loader counts.
    """

    def __init__(
        self, cfg: CfgNode, pictures: list[Picture], skip_bad: bool, labels: dict[str, list[int]]
    ) -> None:
        super().__init__()
        self.names = [picture_name(picture) for picture in pictures]
        self._pictures = pictures
        self._skip_bad = skip_bad
        self._labels = labels
        self._transform = build_transforms(cfg, is_train=False)
        self._size = tuple(cfg.INPUT.SIZE_TEST)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, bad = self.names[index], []
        try:
            pixels = self._transform(to_pixels(self._pictures[index], self._size))
        except UserError as error:
            if not name:
                raise UserError(f"picture {index} (from 0): {error.problem}", error.fix) from error
            if not self._skip_bad:
                raise UserError(error.problem, f"{error.fix}{WAY_OUT}") from error
            pixels, bad = torch.full((3, *self._size), 127, dtype=torch.uint8), [name]
        labels = {label: values[index] for label, values in self._labels.items()}
        return {"images": pixels, "img_paths": name, "bad_images": bad, **labels}

    @property
    def in_memory(self) -> bool:
        """True if not all of them are files."""
        return not all(isinstance(picture, str | os.PathLike) for picture in self._pictures)

    @property
    def bad_rows(self) -> list[int]:
        """Rows that a grey picture stood in for."""
        return [row for row, name in enumerate(self.names) if name in self.replaced]
