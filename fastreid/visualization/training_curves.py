"""The curves of a training, from the metrics.json in the folder of its checkpoint."""

import logging
from array import array
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
LAST = 2**53  # iteration: from here on the page's numbers have gaps
SCORE = "/mAP"

logger = logging.getLogger(__name__)


class Curve:
    """The values of one name; eight bytes a number, as a long training has millions.

    Attributes:
        iterations: (N,) int64, in the order of the file.
        values: (N,) float64.
    """

    def __init__(self) -> None:
        self.iterations, self.values = array("q"), array("d")


def training_charts(run: RunSummary) -> list[Chart]:
    """Draw the losses, and the mAP of each protocol where it was evaluated on the way.

    Without a readable metrics.json there are none. A checkpoint beside one without any such value is worth a
    warning: what trained it has lost its record.
    """
    path = Path(run.checkpoint).parent / "metrics.json"
    history = _read_history(path)
    losses = [name for name in history if "loss" in name]
    losses.sort(key=lambda name: name != "total_loss")
    charts = []
    if losses:
        charts.append(_chart(f"losses_{run.name}", f"Losses, {run.name}", "loss", history, losses))
    scores = [name for name in history if name.endswith(SCORE) and len(history[name].values) > 1]
    if scores:
        title = f"mAP while training, {run.name}"
        charts.append(_chart(f"training_map_{run.name}", title, "mAP, %", history, scores))
    return charts


def _read_history(path: Path) -> dict[str, Curve]:
    """Read every loss and mAP; lines that have none are left out."""
    history: dict[str, Curve] = defaultdict(Curve)
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                _add_record(history, _record(line))
    except OSError:
        return {}
    if not history:
        logger.warning("%s: no loss and no mAP in it, so the report has no training curves", path)
    return history


def _add_record(history: dict[str, Curve], record: dict[str, Any]) -> None:
    iteration = record.get("iteration")
    if not isinstance(iteration, int) or not 0 <= iteration < LAST:
        return
    for name, value in record.items():
        drawn = "loss" in name or name.endswith(SCORE)
        if drawn and isinstance(value, int | float) and abs(value) < LARGEST:
            history[name].iterations.append(iteration)
            history[name].values.append(value)


def _record(line: str) -> dict[str, Any]:
    try:
        record = parse_json(line)
    except ValueError:  # half written, or somebody else's
        return {}
    return record if isinstance(record, dict) else {}


def _thinned(curve: Curve, last: int) -> list[tuple[float, float]]:
    """Return a point for each of at most `POINTS` equal shares of the training: its end, the mean in it."""
    width = max(1, -(-last // POINTS))
    shares = -(-np.array(curve.iterations) // width)
    ends, members, counts = np.unique(shares, return_inverse=True, return_counts=True)
    means = np.bincount(members, curve.values) / counts
    points = zip(ends.tolist(), means.tolist(), strict=True)
    return [(min(end * width, last), float(f"{mean:.4g}")) for end, mean in points]


def _chart(name: str, title: str, y_label: str, history: dict[str, Curve], names: Sequence[str]) -> Chart:
    shown = names[:MOST_SERIES]
    last = max(max(history[name].iterations) for name in shown)
    series = [Series(name.removesuffix(SCORE), _thinned(history[name], last)) for name in shown]
    values = [value for line in series for _, value in line.points]
    low, high = min(0.0, *values), max(values)
    ranges = (0.0, max(1.0, float(last))), (low, high if high > low else low + 1)
    part = f", {len(shown)} of {len(names)} curves" if len(names) > len(shown) else ""
    return Chart("line", name, title + part, "iteration", y_label, series, *ranges, smallest_step=0)
