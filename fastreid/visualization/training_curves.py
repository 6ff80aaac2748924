"""The curves of a training, from the metrics.json in the folder of its checkpoint."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastreid.utils.documents import parse_json
from fastreid.visualization.charts import Chart, Series
from fastreid.visualization.run_summary import RunSummary

POINTS = 200  # of a curve; each is the mean of what is recorded in its share of the training
MOST_SERIES = 6  # of a chart: more cannot be told apart
LARGEST = 1e30  # a larger loss, infinity or NaN has no place on an axis


def training_charts(run: RunSummary) -> list[Chart]:
    """Draw the losses, and the mAP of each protocol where it was evaluated on the way.

    Without a readable metrics.json there are none.
    """
    history = _read_history(Path(run.checkpoint).parent / "metrics.json")
    losses = [name for name in history if "loss" in name]
    losses.sort(key=lambda name: name != "total_loss")
    charts = []
    if losses:
        charts.append(_chart(f"losses_{run.name}", f"Losses, {run.name}", "loss", _series(history, losses)))
    scores = [name for name in history if name.endswith("/mAP") and len(history[name]) > 1]
    if scores:
        series = [
            Series(line.name.removesuffix("/mAP"), line.points, line.labels)
            for line in _series(history, scores)
        ]
        title = f"mAP while training, {run.name}"
        charts.append(_chart(f"training_map_{run.name}", title, "mAP, %", series))
    return charts


def _read_history(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (iteration, value) of every scalar; lines that are none are left out."""
    history: dict[str, list[tuple[int, float]]] = defaultdict(list)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    except OSError:
        return {}
    for line in lines:
        record = _record(line)
        iteration = record.get("iteration")
        for name, value in record.items() if isinstance(iteration, int) else ():
            if name != "iteration" and isinstance(value, int | float) and abs(value) < LARGEST:
                history[name].append((iteration, float(value)))
    return dict(history)


def _record(line: str) -> dict[str, Any]:
    try:
        record = parse_json(line)
    except ValueError:  # half written, or somebody else's
        return {}
    return record if isinstance(record, dict) else {}


def _series(history: dict[str, list[tuple[int, float]]], names: Sequence[str]) -> list[Series]:
    shown = names[:MOST_SERIES]
    last = max(iteration for name in shown for iteration, _ in history[name])
    return [Series(name, _thinned(history[name], last)) for name in shown]


def _thinned(points: Sequence[tuple[int, float]], last: int) -> list[tuple[float, float]]:
    """Return a point for each of at most `POINTS` equal shares of the training: its end, the mean in it."""
    width = max(1, -(-last // POINTS))
    shares: dict[int, list[float]] = defaultdict(list)
    for iteration, value in points:
        shares[-(-iteration // width) * width].append(value)
    ends = sorted(shares)
    return [(min(end, last), float(f"{np.mean(shares[end]):.4g}")) for end in ends]


def _chart(name: str, title: str, y_label: str, series: list[Series]) -> Chart:
    x, y = (np.concatenate([[point[axis] for point in line.points] for line in series]) for axis in (0, 1))
    low, high = min(0.0, float(y.min())), float(y.max())
    ranges = (0.0, max(1.0, float(x.max()))), (low, high if high > low else low + 1)
    return Chart("line", name, title, "iteration", y_label, series, *ranges, smallest_step=0)
