"""Pages of query pictures and what a search found for them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastreid.visualization.html import PAGE_BYTES, write_page
from fastreid.visualization.thumbnails import ThumbnailSheet

FRAMEWORK = 300_000  # bytes of a page beside its pictures and lists


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


class SearchPages(NamedTuple):
    """The files of a search."""

    paths: list[Path]
    lost: int  # pictures that could not be read; the pages have placeholders for them


class _Page(NamedTuple):
    sheet: ThumbnailSheet
    lists: list[dict[str, Any]]


def write_search_page(
    path: str | Path,
    results: Sequence[SearchResult],
    title: str = "Search results",
    score_name: str = "similarity",
    page_bytes: int = PAGE_BYTES,
) -> SearchPages:
    """Write the results as HTML files that hold their pictures, one or as many as their size asks for.

    Args:
        path: the first HTML file; its folder is made. The others are named after it: ``found_2.html`` …
        results: in the order in which they are shown.
        title: heading of the pages.
        score_name: what the hits' scores are, for captions.
        page_bytes: the largest size of a page. Of a query whose hits alone are larger the first are shown,
            and the page says so.

    Raises:
        UserError: if a file cannot be written.
    """
    pages: list[_Page] = []
    for number, result in enumerate(results, start=1):
        if not (pages and _add(pages[-1], number, result, result.hits)):
            pages.append(_Page(ThumbnailSheet(page_bytes - FRAMEWORK, placeholders=True), []))
            hits = result.hits
            while not _add(pages[-1], number, result, hits) and hits:
                hits = hits[: len(hits) // 2]
    pages = pages or [_Page(ThumbnailSheet(0), [])]
    path = Path(path)
    paths = [path, *(path.with_name(f"{path.stem}_{n}{path.suffix}") for n in range(2, len(pages) + 1))]
    for number, (place, page) in enumerate(zip(paths, pages, strict=True), start=1):
        data = {"images": page.sheet.entries, "lists": page.lists, "value_name": score_name}
        values = {"shown": len(page.lists), "total": len(results), "number": number}
        write_page(place, "search.html", data, title=title, files=[p.name for p in paths], **values)
    return SearchPages(paths, sum(page.sheet.lost for page in pages))


def _add(page: _Page, number: int, result: SearchResult, hits: Sequence[SearchHit]) -> bool:
    """Add a query with these hits, unless the page has no room for it."""
    sheet = page.sheet
    if not sheet.add([(item.path, _label(item)) for item in (result, *hits)]):
        return False
    cut = f" (the first {len(hits)} of {len(result.hits)})" if len(hits) < len(result.hits) else ""
    shown = {
        "id": f"query-{number}",
        "title": os.path.basename(result.path) + cut,
        "image": sheet.numbers[result.path],
        "rows": [{"found": [_found(hit, rank, sheet) for rank, hit in enumerate(hits, 1)]}],
    }
    page.lists.append(shown)
    sheet.spend(len(json.dumps(shown)))
    return True


def _label(item: SearchHit | SearchResult) -> dict[str, str]:
    return {"file": os.path.basename(item.path), "text": item.caption}


def _found(hit: SearchHit, rank: int, sheet: ThumbnailSheet) -> dict[str, Any]:
    return {"image": sheet.numbers[hit.path], "rank": rank, "value": float(hit.score), "match": hit.match}
