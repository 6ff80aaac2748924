"""The figures of a comparison as tables: to read (Markdown, HTML), for papers (LaTeX), for programs (CSV)."""

import csv
import io
import math
from dataclasses import fields
from typing import Any, NamedTuple

from tabulate import tabulate

from fastreid.comparison.summary import (
    FEWEST_SEEDS,
    METRICS,
    Comparison,
    Cost,
    Difference,
    ProtocolScores,
    Row,
)

SHOWN = ("mAP", "Rank-1")  # in tables for reading; the CSV has all
SEPARATED = "*"


class TextTable(NamedTuple):
    """A table of words."""

    title: str
    headers: list[str]
    rows: list[list[str]]


def reading_tables(comparison: Comparison) -> list[TextTable]:
    """Return a table for each metric, one of differences, if there are any, of costs and of settings."""
    rows, protocols = comparison.rows, comparison.protocols
    tables = [_metric_table(comparison, metric) for metric in SHOWN]
    if others := rows[1:]:
        lines = [[r.name, *(_difference(r.scores[p].difference) for p in protocols)] for r in others]
        tables.insert(1, TextTable(f"mAP over {comparison.baseline.name}", ["method", *protocols], lines))
    headers = [
        "method",
        "M parameters",
        "GFLOP an image",
        "minutes to train",
        "images/s",
        "GB",
        "measured on",
    ]
    tables.append(TextTable("Cost", headers, [_cost(row) for row in rows]))
    settings = [[row.name, row.method, *row.settings.values()] for row in rows]
    headers = ["method", "architecture", *comparison.baseline.settings]
    return [*tables, TextTable("Settings", headers, settings)]


def markdown(comparison: Comparison) -> str:
    """Return the tables for reading, and what they mean."""
    parts = [f"**{table.title}**\n\n{_markdown_table(table)}" for table in reading_tables(comparison)]
    return "\n\n".join([*parts, *legend(comparison)]) + "\n"


def _markdown_table(table: TextTable) -> str:
    rows = [[cell.replace("|", r"\|") for cell in row] for row in table.rows]
    return tabulate(rows, table.headers, "github", disable_numparse=True)


def legend(comparison: Comparison) -> list[str]:
    """Return sentences that explain the tables for reading."""
    lines = [
        "Mean and standard deviation over the seeds, each model as it is after its last epoch. Parameters:"
        " with the classifiers that training alone uses. GFLOP: a multiplication and an addition are 2."
        " Minutes: an estimate, the median time of an iteration by their number, as many trainings at once as"
        " there were, with the minutes of the model that a method starts from. Images/s and GB: of the whole"
        " feature; on the CPU the memory is that of the whole process."
    ]
    if len(comparison.rows) > 1:
        seeds = max(FEWEST_SEEDS, min(row.seeds for row in comparison.rows))
        chance = 100 * 2 / math.comb(2 * seeds, seeds)
        lines.append(
            "Differences: the mean, and its 95 % interval from 10,000 paired bootstrap samples of the test"
            " persons, the queries' AP averaged over the seeds; the interval is for these trainings, and says"
            f" nothing of other seeds. {SEPARATED}: it leaves out 0, and every seed of one method lies above"
            f" every seed of the other, of which there are at least {FEWEST_SEEDS} each; with {seeds} each,"
            f" chance alone does the latter in {chance:.2g} % of comparisons."
        )
    return lines


def csv_text(comparison: Comparison) -> str:
    """Return a line for each method and protocol, every figure in a column of its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    statistics = [f"{metric} {kind}" for metric in METRICS for kind in ("mean", "sd")]
    cost = [field.name for field in fields(Cost)]
    differences = ["mAP difference", "low", "high", "separated"]
    writer.writerow(
        ["method", "architecture", "protocol", "seeds", *statistics, *differences, "training_seconds", *cost]
    )
    for row in comparison.rows:
        for protocol, scores in row.scores.items():
            figures = [f(metric) for metric in METRICS for f in (scores.mean, scores.deviation)]
            change = _values_of(scores.difference, differences)
            named = [row.name, row.method, protocol, row.seeds]
            writer.writerow([*named, *figures, *change, row.training_seconds, *_values_of(row.cost, cost)])
    return text.getvalue()


def _values_of(record: Any, columns: list[str]) -> list:
    return [None] * len(columns) if record is None else list(vars(record).values())


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


LATEX = str.maketrans(
    {character: f"\\{character}" for character in "_&%#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def _escaped(text: str) -> str:
    return text.translate(LATEX)


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
    mark = f" {SEPARATED}" if difference.separated else ""
    return f"{difference.mean:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}]{mark}"


def _cost(row: Row) -> list[str]:
    minutes, cost = f"{row.training_seconds / 60:.1f}", row.cost
    if cost is None:
        return [row.name, "–", "–", minutes, "–", "–", "–"]
    return [
        row.name,
        f"{cost.parameters / 1e6:.2f}",
        f"{cost.flops / 1e9:.3g}",
        minutes,
        f"{cost.images_per_second:.0f}",
        f"{cost.peak_bytes / 1e9:.2f}",
        f"{cost.device}, batches of {cost.batch_size}",
    ]
