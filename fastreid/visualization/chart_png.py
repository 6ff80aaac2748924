"""The report's curves and tables as PNGs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastreid.structures import Table
from fastreid.utils.file_io import atomic_write, named_output
from fastreid.visualization.charts import Chart

DPI = 150
COLOURS = ("#1756c4", "#a2500a", "#6b3fb5")  # those of the page's light mode
DASHES, MARKERS = ("-", "--", ":"), ("o", "^", "s")
PLAIN_TEXT = rc_context({"text.parse_math": False})  # names may have dollar signs
BETTER, WORSE, SAME = "#0a7a43", "#bb2b22", "#7d8894"


@PLAIN_TEXT
def save_chart(chart: Chart, path: str | Path) -> None:
    """Draw a chart, atomically."""
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    _DRAW[chart.kind](axes, chart)
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)
    axes.set(xlim=chart.x_range, ylim=chart.y_range)
    axes.spines[["top", "right"]].set_visible(False)
    if not chart.ticks:
        axes.set(xticks=[], yticks=[], aspect="equal")
    else:
        axes.grid(axis="y", color="#d9dee4", linewidth=0.8)
        axes.set_axisbelow(True)
    if chart.kind != "bars":
        axes.legend(frameon=False)
    _save(figure, path)


@PLAIN_TEXT
def save_table(table: Table, path: str | Path) -> None:
    """Draw a table as coloured cells with their numbers, atomically."""
    values = np.array([[np.nan if value is None else value for value in row] for row in table.values])
    rows, columns = values.shape
    figure = Figure(figsize=(1.8 + 0.6 * columns, 1.4 + 0.45 * rows), layout="constrained")
    axes = figure.add_subplot()
    low, high = table.limits
    axes.imshow(values, cmap="Blues", vmin=low, vmax=low + 1.6 * (high - low), aspect="auto")  # pale enough
    for row, column in np.argwhere(~np.isnan(values)):
        axes.text(column, row, f"{values[row, column]:.{table.decimals}f}", ha="center", va="center")
    axes.set(title=table.title, xlabel=table.column_label, ylabel=table.row_label)
    axes.set_xticks(range(columns), table.column_names)
    axes.set_yticks(range(rows), table.row_names)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    _save(figure, path)


def _draw_lines(axes: Axes, chart: Chart) -> None:
    for number, series in enumerate(chart.series):
        style = {"color": COLOURS[number % 3], "linestyle": DASHES[(number + number // 3) % 3]}
        axes.plot(*zip(*series.points, strict=True), label=series.name, linewidth=2, **style)


def _draw_points(axes: Axes, chart: Chart) -> None:
    for number, series in enumerate(chart.series):
        x, y = zip(*series.points, strict=True) if series.points else ((), ())
        style = {"color": COLOURS[number % 3], "marker": MARKERS[number % 3]}
        axes.scatter(x, y, label=series.name, s=12, alpha=0.75, linewidths=0, **style)


def _draw_bars(axes: Axes, chart: Chart) -> None:
    x, y = (np.array(values) for values in zip(*chart.series[0].points, strict=True))
    colours = np.select([x > 0, x < 0], [BETTER, WORSE], SAME)
    axes.bar(x, y, width=0.86 * (x[1] - x[0]), color=colours)


_DRAW: dict[str, Callable[[Axes, Chart], None]] = {
    "line": _draw_lines,
    "points": _draw_points,
    "bars": _draw_bars,
}


def _save(figure: Figure, path: str | Path) -> None:
    with named_output(path), atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
