"""A PNG of rank lists: a line for each query, with what was found for it."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fastreid.data import ReIDDataset, Sample
from fastreid.utils.file_io import atomic_write, named_output
from fastreid.visualization.rank_lists import describe_sample
from fastreid.visualization.run_summary import ProtocolSummary
from fastreid.visualization.thumbnails import open_thumbnail

BOX = (64, 128)  # width and height of a picture, pixels
FRAME, SPACE, CAPTION = 4, 10, 34
GREEN, RED, GREY, INK, PAPER = "#0a7a43", "#bb2b22", "#7d8894", "#16202a", "#ffffff"
CELL = (BOX[0] + 2 * FRAME + SPACE, BOX[1] + 2 * FRAME + CAPTION + SPACE)
BESIDE = 24  # between the query and its list, and before the next match


def save_rank_sheet(
    dataset: ReIDDataset, summary: ProtocolSummary, queries: Sequence[int], path: str | Path
) -> None:
    """Write a line for each query: the query, its nearest gallery images, the next true match beyond them.

    A true match has a green frame and a check mark, another person a red frame and a cross.

    Args:
        queries: indices of the queries to draw.
        path: the PNG, written atomically.

    Raises:
        UserError: if a picture cannot be read, or the file not written.
    """
    rankings = summary.rankings
    width = (rankings.top_k.shape[1] + 2) * CELL[0] + SPACE + 2 * BESIDE
    sheet = Image.new("RGB", (width, len(queries) * CELL[1] + SPACE), PAPER)
    for line, query in enumerate(queries):
        top = SPACE + line * CELL[1]
        asked = dataset.query[query]
        caption = [describe_sample(dataset, asked)["short"], f"AP {100 * summary.scores.ap[query]:.1f}"]
        _paste(sheet, asked, (SPACE, top), None, caption)
        left = SPACE + CELL[0] + BESIDE
        for rank, index in enumerate(rankings.top_k[query], start=1):
            if index >= 0:
                found = index, rank, rankings.distances[query, rank - 1]
                _paste_found(sheet, dataset, query, *found, (left, top))
            left += CELL[0]
        if rankings.next_match[query] >= 0:
            nearest = rankings.next_match[query], rankings.next_rank[query], rankings.next_distance[query]
            _paste_found(sheet, dataset, query, *nearest, (left + BESIDE, top))
    with named_output(path), atomic_write(path) as file:
        _with_palette(sheet).save(file, format="PNG", optimize=True)


def _with_palette(sheet: Image.Image) -> Image.Image:
    """The picture in 256 colours, half the bytes; dithered, for the colours of clothes tell people apart.

    The colours are found on a sixteenth of the pixels: on all of them that takes 40 times as long.
    """
    sample = sheet.resize((sheet.width // 4, sheet.height // 4), Image.Resampling.NEAREST)
    return sheet.quantize(palette=sample.quantize(256, kmeans=3), dither=Image.Dither.FLOYDSTEINBERG)


def _paste_found(
    sheet: Image.Image,
    dataset: ReIDDataset,
    query: int,
    index: int,
    rank: int,
    distance: float,
    place: tuple[int, int],
) -> None:
    sample = dataset.gallery[index]
    caption = [f"{rank}: {distance:.3f}", describe_sample(dataset, sample)["short"]]
    _paste(sheet, sample, place, sample.pid == dataset.query[query].pid, caption)


def _paste(
    sheet: Image.Image, sample: Sample, corner: tuple[int, int], match: bool | None, caption: list[str]
) -> None:
    draw = ImageDraw.Draw(sheet)
    x, y = corner
    colour = {None: GREY, True: GREEN, False: RED}[match]
    right, bottom = x + BOX[0] + 2 * FRAME - 1, y + BOX[1] + 2 * FRAME - 1
    draw.rectangle((x, y, right, bottom), fill=colour)
    sheet.paste(open_thumbnail(sample.path).resize(BOX), (x + FRAME, y + FRAME))
    if match is not None:
        draw.rectangle((x, y, x + 17, y + 17), fill=colour)
        strokes = [(4, 9, 8, 13, 14, 4)] if match else [(4, 4, 13, 13), (13, 4, 4, 13)]
        for stroke in strokes:
            moved = [value + (y if place % 2 else x) for place, value in enumerate(stroke)]
            draw.line(moved, fill=PAPER, width=2)
    font = ImageFont.load_default(10)
    draw.multiline_text((x, bottom + 4), "\n".join(caption), fill=INK, font=font, spacing=2)
