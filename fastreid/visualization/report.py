"""The HTML report of one trained model, or of one against another."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from fastreid.data import ReIDDataset
from fastreid.data.datasets.base import joint_view_names
from fastreid.evaluation.equal_terms import ViewGap, view_gap
from fastreid.utils.env import code_version
from fastreid.visualization.charts import ap_change, map_rows, owners_of
from fastreid.visualization.figures import Figures
from fastreid.visualization.generated import SHOWN
from fastreid.visualization.html import PAGE_BYTES, render_page, write_page
from fastreid.visualization.intervals import METRICS
from fastreid.visualization.rank_lists import ShownLists, collect_lists, describe_sample
from fastreid.visualization.run_summary import RunSummary
from fastreid.visualization.thumbnails import SMALL_BOX, ThumbnailSheet

SAME = 0.05  # percent points: AP that changed by less is the same
EXTREMES = 5  # queries named as those that gained or lost most
MAP_SHARE = 0.25  # of the room for pictures, kept for those of the maps
NAMING = 4_000  # bytes for the names of a protocol's extreme queries
MOST_SETTINGS = 1000  # that differ, in the table of them


def write_report(
    path: str | Path,
    datasets: Sequence[ReIDDataset],
    runs: Sequence[RunSummary],
    figures: Figures,
    queries: int,
    page_bytes: int = PAGE_BYTES,
) -> ShownLists:
    """Write the report, one self-contained HTML file.

    Args:
        path: the HTML file; its folder is made.
        datasets: the protocols.
        runs: the model, and perhaps one to compare it with.
        figures: what `build_figures` gave for them.
        queries: rank lists of a protocol, at most.
        page_bytes: the largest size of the page. Pictures have what curves and tables leave of it; lists and
            pictures of the map that do not fit are left out, and the page says so.

    Returns:
        The rank lists in the page.

    Raises:
        UserError: if a picture cannot be read, or the file not written.
    """
    data = {
        "images": [],
        "lists": [],
        "runs": [run.name for run in runs],
        "value_name": "distance",
        "charts": [asdict(chart) for chart in figures.charts],
    }
    values = _describe_runs(datasets, runs, figures)
    nothing = ShownLists([], dict.fromkeys(runs[0].protocols, 0), cut=True)
    bare = render_page("report.html", data, **values, **_describe_lists(datasets, runs, nothing))
    room = page_bytes - len(bare) - NAMING * len(datasets)
    sheet = ThumbnailSheet(int(room * (1 - MAP_SHARE)))
    lists = collect_lists(datasets, runs, queries, sheet)
    data |= {"images": sheet.entries, "lists": lists.lists}
    sheet.budget = room
    _add_map_pictures(data["charts"], datasets, runs, sheet)
    write_page(path, "report.html", data, **values, **_describe_lists(datasets, runs, lists))
    return lists


def _add_map_pictures(
    charts: list[dict[str, Any]],
    datasets: Sequence[ReIDDataset],
    runs: Sequence[RunSummary],
    sheet: ThumbnailSheet,
) -> None:
    """Add the maps' pictures to the sheet, as many as have room, and their numbers to the charts' series."""
    views, owners = joint_view_names(datasets), owners_of(datasets)
    maps = [chart for chart in charts if chart["kind"] == "points"]
    for chart, run in zip(maps, runs, strict=True):
        samples = run.feature_map.samples
        for sample in samples:
            sheet.add([(sample.path, describe_sample(owners[sample.path], sample))], SMALL_BOX)
        rows = map_rows(run.feature_map, len(views))
        for series, members in zip(chart["series"], rows, strict=True):
            series["images"] = [sheet.numbers.get(samples[row].path) for row in members]
            sheet.spend(8 * len(members))


def _describe_runs(
    datasets: Sequence[ReIDDataset], runs: Sequence[RunSummary], figures: Figures
) -> dict[str, Any]:
    """Return what the page says of the runs, whichever lists it shows."""
    return {
        "title": f"Person retrieval: {' against '.join(run.name for run in runs)}",
        "written": datetime.now(timezone.utc).strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
        "version": code_version(),
        "runs": runs,
        "metrics": METRICS,
        "views": joint_view_names(datasets),
        "gaps": _view_gaps(datasets, runs),
        "figures": figures,
        "chart_number": {chart.name: number for number, chart in enumerate(figures.charts)},
        "length": next(iter(runs[0].protocols.values())).rankings.top_k.shape[1],
        "generated_length": SHOWN,
        "most_settings": MOST_SETTINGS,
    }


def _describe_lists(
    datasets: Sequence[ReIDDataset], runs: Sequence[RunSummary], lists: ShownLists
) -> dict[str, Any]:
    """Return what the page says of the protocols, with the shown lists of each."""
    protocols = [
        {
            "name": dataset.name,
            "queries": len(dataset.query),
            "gallery": len(dataset.gallery),
            "shown": lists.shown[dataset.name],
            "change": _describe_change(dataset.name, runs, lists) if len(runs) > 1 else None,
        }
        for dataset in datasets
    ]
    return {"protocols": protocols, "cut": lists.cut}


def _view_gaps(datasets: Sequence[ReIDDataset], runs: Sequence[RunSummary]) -> dict[str, ViewGap]:
    """Return the runs' view gaps by their names; without protocols of both kinds there are none."""
    gaps = {}
    for run in runs:
        results = {name: summary.metrics for name, summary in run.protocols.items()}
        gap = view_gap(datasets, results, run.distractors)
        if gap is not None:
            gaps[run.name] = gap
    return gaps


def _describe_change(protocol: str, runs: Sequence[RunSummary], lists: ShownLists) -> dict[str, Any]:
    """Count the queries that got better or worse, and name the shown ones that did most."""
    change = ap_change(*(run.protocols[protocol] for run in runs))
    change = change[~np.isnan(change)]
    shown = [
        (item["rows"][0]["ap"] - item["rows"][1]["ap"], item)
        for item in lists.lists
        if item["protocol"] == protocol
    ]
    rising = sorted(shown, key=lambda pair: pair[0])
    return {
        "better": int((change >= SAME).sum()),
        "worse": int((change <= -SAME).sum()),
        "same": int((np.abs(change) < SAME).sum()),
        "gained": [item for delta, item in rising[::-1][:EXTREMES] if 100 * delta >= SAME],
        "lost": [item for delta, item in rising[:EXTREMES] if 100 * delta <= -SAME],
    }
