"""Pictures of rank lists: a query and what was found for it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from fastreid.utils.file_io import atomic_write

CROP = (128, 64)  # height and width of a picture in the sheet, pixels
MARGIN, CAPTION = 6, 14
GREEN, RED, GREY = (0, 140, 60), (200, 40, 30), (90, 90, 90)


def draw_rank_lists(
    query: Sequence, gallery: Sequence, top_k: np.ndarray, rows: Sequence[int], length: int, path: str | Path
) -> None:
    """Write a PNG with a line for each chosen query: the query, then its nearest gallery images.

    A true match has a green frame and a ``+`` in its caption, a false one a red frame and a ``-``. The
    captions name camera and view.

    Args:
        query: samples of the protocol's queries, with ``path, pid, camid, viewid``.
        gallery: samples of its gallery.
        top_k: (Q, k) gallery indices in rank order, -1 behind the last, as ``TEST.SAVE_RANKS`` writes them.
        rows: indices of the queries to draw.
        length: gallery images of a line, at most k.
        path: the PNG.
    """
    height, width = CROP
    cell = (width + 2 * MARGIN, height + 2 * MARGIN + CAPTION)
    sheet = Image.new("RGB", (cell[0] * (length + 1) + MARGIN, cell[1] * len(rows)), "white")
    for line, row in enumerate(rows):
        asked = query[row]
        _paste(sheet, asked, (0, line * cell[1]), GREY, "query")
        found = [gallery[index] for index in top_k[row, :length] if index >= 0]
        for column, sample in enumerate(found, start=1):
            match = sample.pid == asked.pid
            place = (column * cell[0] + MARGIN, line * cell[1])
            _paste(sheet, sample, place, GREEN if match else RED, "+" if match else "-")
    with atomic_write(path) as file:
        sheet.save(file, format="PNG", optimize=True)


def spread_by_precision(average_precision: np.ndarray, count: int) -> list[int]:
    """Indices of `count` queries from the worst to the best average precision, evenly spaced in rank."""
    order = np.argsort(average_precision, kind="stable")
    order = order[~np.isnan(average_precision[order])]
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return order[places].tolist()


def _paste(sheet: Image.Image, sample, corner: tuple[int, int], color: tuple, mark: str) -> None:
    height, width = CROP
    with Image.open(sample.path) as image:
        picture = ImageOps.exif_transpose(image).convert("RGB").resize((width, height))
    x, y = corner
    draw = ImageDraw.Draw(sheet)
    frame = MARGIN // 2
    draw.rectangle(
        (x + frame, y + frame, x + width + MARGIN + frame, y + height + MARGIN + frame), fill=color
    )
    sheet.paste(picture, (x + MARGIN, y + MARGIN))
    caption = (
        f"{mark} cam {sample.camid} view {sample.viewid}"
        if mark != "query"
        else f"query view {sample.viewid}"
    )
    draw.text((x + frame, y + height + 2 * MARGIN), caption, fill=color, font_size=9)
