"""Small pictures as data URIs: each image once, and no more of them than a page may hold."""

import base64
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from PIL import Image

from fastreid.data import read_image

BOX = (96, 144)  # the largest width and height of a thumbnail, pixels
QUALITY = 75  # of WebP: about 2 kB for a person crop


def open_thumbnail(path: str, box: tuple[int, int] = BOX) -> Image.Image:
    """The image, upright and RGB, shrunk to fit `box` (width, height); a smaller one keeps its size.

    Raises:
        UserError: if the file cannot be read.
    """
    pixels = read_image(path, (box[1], box[0]))
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    picture.thumbnail(box, Image.Resampling.LANCZOS)
    return picture


def thumbnail_uri(path: str) -> str:
    """The thumbnail as ``data:image/webp;base64,…``. Raises UserError if the file cannot be read."""
    buffer = io.BytesIO()
    open_thumbnail(path).save(buffer, format="WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


class ThumbnailSheet:
    """The thumbnails of a page, numbered from 0 as they are added.

    Args:
        budget: bytes that the thumbnails, with what is said of them, may take in the page.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.size = budget, 0
        self.numbers: dict[str, int] = {}
        self.entries: list[dict[str, Any]] = []

    def add(self, labels: Iterable[tuple[str, Mapping[str, Any]]]) -> bool:
        """Add the images of one list, all of them or, when they would go over the budget, none.

        Args:
            labels: path and what is said of it; a path that is there already is not read again.

        Returns:
            Whether the images are there.

        Raises:
            UserError: if one cannot be read.
        """
        new = {path: label for path, label in labels if path not in self.numbers}
        entries = [{"src": thumbnail_uri(path), **label} for path, label in new.items()]
        size = len(json.dumps(entries))
        if self.size + size > self.budget:
            return False
        for path, entry in zip(new, entries, strict=True):
            self.numbers[path] = len(self.entries)
            self.entries.append(entry)
        self.spend(size)
        return True

    def spend(self, size: int) -> None:
        """Count `size` bytes that something else takes of the budget."""
        self.size += size
