"""Image files as RGB tensors."""

import io
import os
import stat
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps

from fastreid.data.formats import readable_formats
from fastreid.utils.errors import UserError

ORIENTATION = 0x0112  # EXIF tag
SIDEWAYS = (5, 6, 7, 8)  # its values for a stored picture that lies on its side


def read_image(path: str, size: tuple[int, int] | None = None) -> torch.Tensor:
    """Decode an image file: uint8 (3, H, W), RGB, upright, in channels-last memory.

    Grayscale, CMYK, palette and transparent images become RGB (transparency is dropped), 16-bit images
    8-bit ones, and the EXIF orientation is applied. With `size` (height, width), a JPEG file of at least
    twice that size is decoded at a half, quarter or eighth of its own, still no smaller than `size`.

    Raises:
        UserError: if it is missing, no regular file, empty, truncated or not an image of one of `FORMATS`.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would wait for somebody to write
            raise OSError("it is a folder, a FIFO or a device, not a file")
        pixels = _decode(path, size)
    except FileNotFoundError:
        raise UserError(f"image file not found: {path}", "restore the file") from None
    except Exception as error:
        empty = os.path.isfile(path) and os.path.getsize(path) == 0
        reason = "it is empty (0 bytes)" if empty else " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read image {path}: {reason}", "restore the file") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def decode_image(content: bytes, size: tuple[int, int] | None = None) -> torch.Tensor:
    """Decode the content of an image file as `read_image` does.

    Raises:
        UserError: if it is empty, truncated or not an image.
    """
    try:
        pixels = _decode(io.BytesIO(content), size)
    except Exception as error:
        reason = " ".join(str(error).split()) if content else "they are none"
        raise UserError(f"cannot read an image from {len(content)} bytes: {reason}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _decode(source: str | BinaryIO, size: tuple[int, int] | None) -> np.ndarray:
    with Image.open(source, formats=readable_formats()) as image:
        return np.array(upright_rgb(image, size))


def upright_rgb(image: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
    """8-bit RGB, turned as the EXIF orientation says; `image` may be changed. See :func:`read_image`."""
    if size is not None:
        sideways = "exif" in image.info and image.getexif().get(ORIENTATION) in SIDEWAYS
        image.draft("RGB", size if sideways else (size[1], size[0]))
    if image.format != "JPEG" or "exif" in image.info:  # looking for EXIF data costs a tenth of decoding
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16-bit grayscale, which convert() would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")
