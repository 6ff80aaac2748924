"""The figures of a comparison as tables: to read (Markdown, HTML), for papers (LaTeX), for programs (CSV)."""

import csv
import io
from typing import NamedTuple

from tabulate import tabulate

from fastreid.comparison.summary import METRICS, Comparison, Difference, ProtocolScores, Row

SHOWN = ("mAP", "Rank-1")  # in tables for reading; the CSV has all
BEYOND = "*"


class TextTable(NamedTuple):
    """A table of words."""

    title: str
    headers: list[str]
    rows: list[list[str]]


def reading_tables(comparison: Comparison) -> list[TextTable]:
    """Return a table for each metric, one of differences, if there are any, and one of costs."""
    names, protocols = ["method", *comparison.protocols], comparison.protocols
    tables = [_metric_table(comparison, metric) for metric in SHOWN]
    others = comparison.rows[1:]
    if others:
        rows = [[r.name, *(_difference(r.scores[p].difference) for p in protocols)] for r in others]
        tables.insert(1, TextTable(f"mAP over {comparison.baseline.name}", names, rows))
    device = comparison.device
    headers = ["method", "M parameters", "GFLOP an image", f"minutes to train, {device}"]
    headers += [f"images/s, {device}", "GB, extraction"]
    return [*tables, TextTable("Cost", headers, [_cost(row) for row in comparison.rows])]


def markdown(comparison: Comparison) -> str:
    """Return the tables for reading, and what they mean."""
    parts = [
        f"**{table.title}**\n\n" + tabulate(table.rows, table.headers, "github", disable_numparse=True)
        for table in reading_tables(comparison)
    ]
    return "\n\n".join([*parts, *legend(comparison)]) + "\n"


def legend(comparison: Comparison) -> list[str]:
    """Return sentences that explain the tables for reading."""
    lines = [
        "Mean and standard deviation over the seeds, each model as it is after its last epoch. Cost:"
        " parameters and operations (a multiplication and an addition are 2) of the whole feature; the time"
        " of all training iterations, as many trainings at once as there were; extraction alone."
    ]
    if len(comparison.rows) > 1:
        lines.append(
            "Differences: the mean, and its 95 % interval from 10,000 paired bootstrap samples of the test"
            f" persons, the queries' AP averaged over the seeds. {BEYOND}: the interval leaves out 0, and"
            " every seed of one method is above every seed of the other."
        )
    return lines


def csv_text(comparison: Comparison) -> str:
    """Return a line for each method and protocol, every figure in a column of its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    statistics = [f"{metric} {kind}" for metric in METRICS for kind in ("mean", "sd")]
    cost = ["parameters", "flops_per_image", "training_seconds", "images_per_second", "peak_bytes"]
    differences = ["mAP difference", "low", "high", "beyond"]
    writer.writerow(["method", "architecture", "protocol", "seeds", *statistics, *differences, *cost])
    for row in comparison.rows:
        for protocol, scores in row.scores.items():
            figures = [f(metric) for metric in METRICS for f in (scores.mean, scores.deviation)]
            change = scores.difference or [None] * len(differences)
            named = [row.name, row.method, protocol, row.seeds]
            writer.writerow([*named, *figures, *change, *vars(row.cost).values()])
    return text.getvalue()


def latex(comparison: Comparison) -> str:
    r"""Return a ``tabular`` for the package booktabs: Rank-1 and mAP of each protocol, the best ones bold."""
    protocols, metrics = comparison.protocols, ("Rank-1", "mAP")
    best = {(p, m): max(row.scores[p].mean(m) for row in comparison.rows) for p in protocols for m in metrics}
    lines = [rf"\begin{{tabular}}{{l{'cc' * len(protocols)}}}", r"\toprule"]
    lines.append(" & ".join(["", *(rf"\multicolumn{{2}}{{c}}{{{_escaped(p)}}}" for p in protocols)]) + r" \\")
    lines.append(" & ".join(["Method", *(m for _ in protocols for m in metrics)]) + r" \\")
    lines.append(r"\midrule")
    for row in comparison.rows:
        cells = [_latex_cell(row.scores[p], m, best[p, m]) for p in protocols for m in metrics]
        lines.append(" & ".join([_escaped(row.name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_cell(scores: ProtocolScores, metric: str, best: float) -> str:
    mean, deviation = scores.mean(metric), scores.deviation(metric)
    shown = rf"\mathbf{{{mean:.1f}}}" if mean == best else f"{mean:.1f}"
    return f"${shown}$" if deviation is None else rf"${shown} \pm {deviation:.1f}$"


def _escaped(text: str) -> str:
    return text.replace("_", r"\_").replace("&", r"\&").replace("%", r"\%")


def _metric_table(comparison: Comparison, metric: str) -> TextTable:
    rows = [
        [row.name, *(_value(row.scores[p], metric) for p in comparison.protocols), str(row.seeds)]
        for row in comparison.rows
    ]
    return TextTable(f"{metric}, percent", ["method", *comparison.protocols, "seeds"], rows)


def _value(scores: ProtocolScores, metric: str) -> str:
    deviation = scores.deviation(metric)
    return f"{scores.mean(metric):.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return ""
    mark = f" {BEYOND}" if difference.beyond else ""
    return f"{difference.mean:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}]{mark}"


def _cost(row: Row) -> list[str]:
    cost = row.cost
    return [
        row.name,
        f"{cost.parameters / 1e6:.2f}",
        f"{cost.flops / 1e9:.3g}",
        f"{cost.training_seconds / 60:.1f}",
        f"{cost.images_per_second:.0f}",
        f"{cost.peak_bytes / 1e9:.2f}",
    ]
