"""The HTML report of one trained model, or of one against another."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastreid.data import ReIDDataset
from fastreid.data.datasets.base import joint_view_names
from fastreid.evaluation.equal_terms import ViewGap, view_gap
from fastreid.structures import Table
from fastreid.visualization.charts import (
    Chart,
    ap_change,
    camera_table,
    change_chart,
    cmc_chart,
    map_chart,
    precision_recall_chart,
    view_table,
)
from fastreid.visualization.html import IMAGE_BYTES, write_page
from fastreid.visualization.rank_lists import ShownLists, collect_lists
from fastreid.visualization.run_summary import RunSummary
from fastreid.visualization.thumbnails import ThumbnailSheet

METRICS = ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP")
SAME = 0.05  # percent points: AP that changed by less is the same
EXTREMES = 5  # queries named as those that gained or lost most


class Figures(NamedTuple):
    """The curves and tables of a report."""

    curves: list[Chart]  # two for each protocol
    changes: list[Chart]  # one for each protocol, with two runs
    cameras: list[Table]  # one for each protocol
    at_equal_terms: list[Table]  # one for each run that was evaluated so
    tables: list[Table]  # that the methods add
    maps: list[Chart]  # one for each run


def build_figures(datasets: Sequence[ReIDDataset], runs: Sequence[RunSummary]) -> Figures:
    """Draw everything but the rank lists, of one or two runs."""
    names = [dataset.name for dataset in datasets]
    curves = [draw(name, runs) for name in names for draw in (cmc_chart, precision_recall_chart)]
    changes = [change_chart(name, runs) for name in names] if len(runs) > 1 else []
    cameras = [camera_table(dataset, runs) for dataset in datasets]
    views = joint_view_names(datasets)
    at_equal_terms = [view_table(datasets, run, views) for run in runs if run.distractors]
    maps = [map_chart(run.name, run.feature_map, datasets) for run in runs]
    return Figures(curves, changes, cameras, at_equal_terms, _method_tables(runs), maps)


def _method_tables(runs: Sequence[RunSummary]) -> list[Table]:
    """Return the runs' own tables, each named by its run; where two runs have the same one, the first's."""
    shown: list[tuple[str, Table]] = []
    for run in runs:
        known = [table for _, table in shown]
        shown += [(run.name, new) for new in run.tables if not any(_same(new, old) for old in known)]
    return [replace(table, name=f"{table.name}_{run}", title=f"{table.title}, {run}") for run, table in shown]


def _same(first: Table, second: Table) -> bool:
    """Tell whether tables have the same content, but for the rounding of float32."""
    values = [np.array(table.values, np.float64) for table in (first, second)]
    alike = values[0].shape == values[1].shape and np.allclose(*values, atol=1e-6, equal_nan=True)
    return bool(alike) and replace(first, values=[]) == replace(second, values=[])


def write_report(
    path: str | Path,
    datasets: Sequence[ReIDDataset],
    runs: Sequence[RunSummary],
    figures: Figures,
    queries: int,
    image_bytes: int = IMAGE_BYTES,
) -> ShownLists:
    """Write the report, one self-contained HTML file of less than 20 MB.

    Args:
        path: the HTML file; its folder is made.
        datasets: the protocols.
        runs: the model, and perhaps one to compare it with.
        figures: what `build_figures` gave for them.
        queries: rank lists of a protocol, at most.
        image_bytes: what the pictures may take. Lists that do not fit are left out, and the page says so.

    Returns:
        The rank lists in the page.

    Raises:
        UserError: if a picture cannot be read, or the file not written.
    """
    sheet = ThumbnailSheet(image_bytes)
    lists = collect_lists(datasets, runs, queries, sheet)
    charts = [*figures.curves, *figures.changes, *figures.maps]
    data = {
        "images": sheet.entries,
        "lists": lists.lists,
        "runs": [run.name for run in runs],
        "value_name": "distance",
        "charts": [asdict(chart) for chart in charts],
    }
    title = " against ".join(run.name for run in runs)
    write_page(
        path,
        "report.html",
        data,
        title=f"Person retrieval: {title}",
        runs=runs,
        metrics=METRICS,
        protocols=[_describe_protocol(dataset, runs, lists) for dataset in datasets],
        views=joint_view_names(datasets),
        gaps=_view_gaps(datasets, runs),
        figures=figures,
        chart_number={chart.name: number for number, chart in enumerate(charts)},
        cut=lists.cut,
        length=next(iter(runs[0].protocols.values())).rankings.top_k.shape[1],
    )
    return lists


def _describe_protocol(dataset: ReIDDataset, runs: Sequence[RunSummary], lists: ShownLists) -> dict[str, Any]:
    name = dataset.name
    return {
        "name": name,
        "queries": len(dataset.query),
        "gallery": len(dataset.gallery),
        "shown": lists.shown[name],
        "results": [run.protocols[name].metrics for run in runs],
        "change": _describe_change(name, runs, lists) if len(runs) > 1 else None,
    }


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
