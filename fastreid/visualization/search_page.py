"""A page of query pictures and what a search found for them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fastreid.visualization.html import IMAGE_BYTES, write_page
from fastreid.visualization.thumbnails import ThumbnailSheet


class SearchHit(NamedTuple):
    """One picture that was found."""

    path: str
    score: float
    caption: str = ""  # what else is known of it, such as "ground view, camera 3"
    match: bool | None = None  # whether it shows the query's person; None: not known


class SearchResult(NamedTuple):
    """A query picture and what was found for it, nearest first."""

    path: str
    hits: Sequence[SearchHit]
    caption: str = ""


def write_search_page(
    path: str | Path,
    results: Sequence[SearchResult],
    title: str = "Search results",
    score_name: str = "similarity",
    image_bytes: int = IMAGE_BYTES,
) -> int:
    """Write the results as one self-contained HTML file of less than 20 MB.

    Args:
        path: the HTML file; its folder is made.
        results: in the order in which they are shown.
        title: heading of the page.
        score_name: what the hits' scores are, for captions.
        image_bytes: what the pictures may take; results from the first that does not fit are left out,
            and the page says so.

    Returns:
        The number of results in the page.

    Raises:
        UserError: if a picture cannot be read, or the file not written.
    """
    sheet, lists = ThumbnailSheet(image_bytes), []
    for number, result in enumerate(results, start=1):
        pictures = [(item.path, _label(item)) for item in (result, *result.hits)]
        if not sheet.add(pictures):
            break
        lists.append(
            {
                "id": f"query-{number}",
                "title": os.path.basename(result.path),
                "image": sheet.numbers[result.path],
                "rows": [{"found": [_found(hit, rank, sheet) for rank, hit in enumerate(result.hits, 1)]}],
            }
        )
    data = {"images": sheet.entries, "lists": lists, "value_name": score_name}
    write_page(path, "search.html", data, title=title, shown=len(lists), total=len(results))
    return len(lists)


def _label(item: SearchHit | SearchResult) -> dict[str, str]:
    return {"file": os.path.basename(item.path), "text": item.caption}


def _found(hit: SearchHit, rank: int, sheet: ThumbnailSheet) -> dict:
    return {"image": sheet.numbers[hit.path], "rank": rank, "value": float(hit.score), "match": hit.match}
