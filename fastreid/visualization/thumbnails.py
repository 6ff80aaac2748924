"""Small pictures as data URIs: each image once, and no more of them than a page may hold."""

import base64
import io
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from PIL import Image

from fastreid.data import read_image
from fastreid.utils.errors import UserError

BOX = (144, 288)  # the largest width and height of a picture in a list, pixels: it opens large
SMALL_BOX = (64, 128)  # of a picture on a map
QUALITY = 75  # of WebP: about 4 kB for a person crop


def open_thumbnail(path: str, box: tuple[int, int] = BOX) -> Image.Image:
    """The image, upright and RGB, shrunk to fit `box` (width, height); a smaller one keeps its size.

    Raises:
        UserError: if the file cannot be read.
    """
    pixels = read_image(path, (box[1], box[0]))
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    picture.thumbnail(box, Image.Resampling.LANCZOS)
    return picture


def thumbnail_uri(path: str, box: tuple[int, int] = BOX) -> str:
    """The thumbnail as ``data:image/webp;base64,…``. Raises UserError if the file cannot be read."""
    buffer = io.BytesIO()
    open_thumbnail(path, box).save(buffer, format="WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


class ThumbnailSheet:
    """The thumbnails of a page, numbered from 0 as they are added.

    Args:
        budget: bytes that the thumbnails, with what is said of them, may take in the page.
        placeholders: keep a place for a picture that cannot be read, with the reason (``lost``).

    Attributes:
        lost: how many pictures could not be read.
    """

    def __init__(self, budget: int, placeholders: bool = False) -> None:
        self.budget, self.size, self.placeholders = budget, 0, placeholders
        self.numbers: dict[str, int] = {}
        self.entries: list[dict[str, Any]] = []

    @property
    def lost(self) -> int:
        return sum("lost" in entry for entry in self.entries)

    def add(self, labels: Iterable[tuple[str, Mapping[str, Any]]], box: tuple[int, int] = BOX) -> bool:
        """Add the images of one list, all of them or, when they would go over the budget, none.

        Args:
            labels: path and what is said of it; a path that is there already is not read again.
            box: the largest width and height, pixels.

        Returns:
            Whether the images are there.

        Raises:
            UserError: if one cannot be read, unless it gets a placeholder.
        """
        new = {path: label for path, label in labels if path not in self.numbers}
        entries = [{**self._picture(path, box), **label} for path, label in new.items()]
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

    def _picture(self, path: str, box: tuple[int, int]) -> dict[str, str]:
        try:
            return {"src": thumbnail_uri(path, box)}
        except UserError as error:
            if not self.placeholders:
                raise
            return {"lost": "no such file" if not os.path.exists(path) else error.problem}
