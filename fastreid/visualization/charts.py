"""The curves and tables of a report as plain data, drawn by the page's script and as PNGs alike."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fastreid.data import ReIDDataset
from fastreid.data.datasets.base import joint_view_names
from fastreid.evaluation.equal_terms import metric_names, views_of
from fastreid.structures import Table
from fastreid.visualization.feature_map import METHODS, FeatureMap
from fastreid.visualization.html import signed
from fastreid.visualization.rankings import RECALL_LEVELS
from fastreid.visualization.run_summary import ProtocolSummary, RunSummary

CHANGE_BARS = 10  # on either side of the middle one in the chart of AP changes
LONGEST_LABEL = 66  # characters that have room below a chart
MAP_ASPECT = 1.58  # width of a map over its height


@dataclass(frozen=True)
class Series:
    """Points of one name."""

    name: str
    points: list[tuple[float, float]]
    labels: list[str] = field(default_factory=list)  # what is said of each point; empty: its coordinates
    persons: list[int] = field(default_factory=list)  # in a map: whom each point shows, from 0; -1: nobody


@dataclass(frozen=True)
class Chart:
    """A line for each series, marks (``points``), or the bars of one series.

    Points of bars are the bars' middles and heights.
    """

    kind: str  # line, points, bars; a line's points have rising x
    name: str  # of its file
    title: str
    x_label: str
    y_label: str
    series: list[Series]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    ticks: bool = True  # False: the axes have no scale
    smallest_step: float = 1  # between two ticks
    protocol: str = ""  # that it is about; "": all


def cmc_chart(protocol: str, runs: Sequence[RunSummary]) -> Chart:
    """Draw the share of queries with a true match among the first r."""
    series = [
        Series(run.name, _points(range(1, 51), 100 * run.protocols[protocol].cmc, decimals=2)) for run in runs
    ]
    longest = max(len(line.points) for line in series)
    lowest = min(line.points[0][1] for line in series)
    floor = 10 * max(0, int(lowest // 10) - 1)
    ranges = (1, max(longest, 2)), (floor, 100)
    title = f"CMC, {protocol}"
    return Chart(
        "line", f"cmc_{protocol}", title, "rank", "queries matched, %", series, *ranges, protocol=protocol
    )


def precision_recall_chart(protocol: str, runs: Sequence[RunSummary]) -> Chart:
    """Draw the interpolated precision at each level of recall, mean over the queries."""
    means = {run.name: 100 * run.protocols[protocol].rankings.precision for run in runs}
    series = [Series(name, _points(100 * RECALL_LEVELS, mean, decimals=2)) for name, mean in means.items()]
    title = f"Precision and recall, {protocol}"
    name = f"precision_recall_{protocol}"
    ranges = (0, 100), (0, 100)
    return Chart("line", name, title, "recall, %", "precision, %", series, *ranges, protocol=protocol)


def change_chart(protocol: str, runs: Sequence[RunSummary]) -> Chart:
    """Draw how many queries' AP changed by how much, from the second of two runs to the first."""
    change = ap_change(*(run.protocols[protocol] for run in runs))
    change = change[~np.isnan(change)]
    width = max(1, math.ceil(np.abs(change).max() / 10)) * 10 / CHANGE_BARS
    edges = width * (np.arange(-CHANGE_BARS, CHANGE_BARS + 2) - 0.5)
    counts, _ = np.histogram(change, edges)
    middles = (edges[:-1] + edges[1:]) / 2
    labels = [
        f"{count} queries: AP {signed(middle - width / 2)} to {signed(middle + width / 2)}"
        for middle, count in zip(middles, counts, strict=True)
    ]
    difference = f"{' less '.join(f'AP of {run.name}' for run in runs)}, percent points"
    if len(difference) > LONGEST_LABEL:
        difference = "AP of the first model less that of the second, percent points"
    bars = [Series("queries", _points(middles, counts, decimals=1), labels)]
    ranges = (float(edges[0]), float(edges[-1])), (0, max(1, int(counts.max())))
    title = f"Change of AP, {protocol}"
    return Chart("bars", f"change_{protocol}", title, difference, "queries", bars, *ranges, protocol=protocol)


def ap_change(first: ProtocolSummary, second: ProtocolSummary) -> np.ndarray:
    """Return (Q,) float64, percent points from the second to the first; NaN without a match."""
    return 100 * (first.scores.ap - second.scores.ap)


def map_chart(name: str, feature_map: FeatureMap, datasets: Sequence[ReIDDataset]) -> Chart:
    """Draw a map of features of the datasets' images, a series for each view."""
    low, high = feature_map.points.min(0), feature_map.points.max(0)
    shape = np.array([MAP_ASPECT, 1.0])
    span = max(float(((high - low) / shape).max()), 1e-12)  # one scale for both directions keeps distances
    places = (feature_map.points - (low + high) / 2) / span
    series, owners = [], owners_of(datasets)
    persons = {pid: number for number, pid in enumerate(sorted({s.pid for s in feature_map.samples} - {-1}))}
    views = joint_view_names(datasets)
    for view_name, members in zip(views, map_rows(feature_map, len(views)), strict=True):
        samples = [feature_map.samples[row] for row in members]
        names = [owners[sample.path].names_of(sample) for sample in samples]
        labels = [f"person {name.person}, {name.view} view, camera {name.camera}" for name in names]
        whom = [persons.get(s.pid, -1) for s in samples]
        series.append(Series(view_name, _points(*places[members].T, decimals=4), labels, whom))
    method = METHODS[feature_map.method]
    axes = ("component 1", "component 2") if feature_map.method == "pca" else ("", "")
    title = f"{method} of the features, {name}"
    ranges = (-0.53 * MAP_ASPECT, 0.53 * MAP_ASPECT), (-0.53, 0.53)
    return Chart("points", f"feature_map_{name}", title, *axes, series, *ranges, ticks=False)


def map_rows(feature_map: FeatureMap, num_views: int) -> list[list[int]]:
    """Return the places in the map's samples of each view's images, as the series of its chart have them."""
    views = [sample.viewid for sample in feature_map.samples]
    return [[row for row, view in enumerate(views) if view == number] for number in range(num_views)]


def owners_of(datasets: Sequence[ReIDDataset]) -> dict[str, ReIDDataset]:
    """Return the dataset that knows the names of an image, by the image's path."""
    return {s.path: dataset for dataset in datasets for s in (*dataset.query, *dataset.gallery)}


def cut_table(table: Table, most: int) -> Table:
    """Return the first `most` rows and columns of a table; where there are more its title says so."""
    title = table.title
    for lines, kind in ((table.row_names, "rows"), (table.column_names, "columns")):
        title += f", {most} of {len(lines)} {kind}" if len(lines) > most else ""
    return replace(
        table,
        title=title,
        row_names=table.row_names[:most],
        column_names=table.column_names[:most],
        values=[row[:most] for row in table.values[:most]],
        notes=[row[:most] for row in table.notes[:most]],
    )


def camera_table(dataset: ReIDDataset, runs: Sequence[RunSummary], most: int) -> Table:
    """Give the first run's mAP of each query camera against each gallery camera; notes tell the second's.

    Of more than `most` those with the most images are shown.
    """
    q_cameras, g_cameras = ([s.camid for s in part] for part in (dataset.query, dataset.gallery))
    known = sorted({*q_cameras, *g_cameras})
    rows, columns = _most_frequent(q_cameras, most), _most_frequent(g_cameras, most)
    cells = np.ix_([known.index(camera) for camera in rows], [known.index(camera) for camera in columns])
    parts = [run.protocols[dataset.name].rankings for run in runs]
    values, queries = 100 * parts[0].pair_ap[cells], parts[0].pair_queries[cells]
    changes = values - 100 * parts[-1].pair_ap[cells]
    notes = [
        [_pair_note(count, change, runs) for count, change in zip(*line, strict=True)]
        for line in zip(queries.tolist(), changes.tolist(), strict=True)
    ]
    numbers = values[~np.isnan(values)]
    low = float(numbers.min(initial=100))
    limits = low, max(float(numbers.max(initial=0)), low + 1)
    names = dataset.camera_names
    sides = "query", "gallery", [names[camera] for camera in rows], [names[camera] for camera in columns]
    shown = len({*rows, *columns})
    part = "" if shown == len(known) else f", {shown} of {len(known)} cameras"
    title = f"AP of camera pairs, {dataset.name}{part}"
    return Table(f"cameras_{dataset.name}", title, *sides, _or_none(values), notes, limits)


def _most_frequent(cameras: Sequence[int], most: int) -> list[int]:
    return sorted(camera for camera, _ in Counter(cameras).most_common(most))


def _pair_note(queries: int, change: float, runs: Sequence[RunSummary]) -> str:
    if not queries:
        return ""
    note = f"{queries} {'query' if queries == 1 else 'queries'}"
    return note if len(runs) < 2 else f"{note}, {signed(change)} against {runs[1].name}"


def view_table(datasets: Sequence[ReIDDataset], run: RunSummary, view_names: Sequence[str]) -> Table:
    """Give the run's mAP at equal terms of each view of queries against each view of the gallery.

    Protocols of the same views share a cell, with their mean; its note names them.
    """
    metric = metric_names(run.distractors)[1]
    cells: dict[tuple, dict[str, float]] = defaultdict(dict)
    for dataset in datasets:
        views = views_of(dataset.query), views_of(dataset.gallery)
        cells[views][dataset.name] = run.protocols[dataset.name].metrics[metric]
    sides = [sorted({views[side] for views in cells}, key=lambda v: (len(v), v)) for side in (0, 1)]
    names = [[" and\n".join(view_names[v] for v in views) for views in side] for side in sides]
    found = [[cells.get((row, column), {}) for column in sides[1]] for row in sides[0]]
    values = [[float(np.mean(list(cell.values()))) if cell else None for cell in line] for line in found]
    notes = [[", ".join(f"{name} {x:.1f}" for name, x in cell.items()) for cell in line] for line in found]
    labels = "query", "gallery", *names
    return Table(f"view_gap_{run.name}", f"{metric}, {run.name}", *labels, values, notes, (0, 100))


def _points(x: Sequence[float], y: Sequence[float], decimals: int) -> list[tuple[float, float]]:
    return [(round(float(a), decimals), round(float(b), decimals)) for a, b in zip(x, y, strict=False)]


def _or_none(values: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in values]
