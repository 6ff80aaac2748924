"""Put the results of several evaluations into one table, with differences to the first, and into files."""

import argparse
import csv
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from tabulate import tabulate

from fastreid.cli.parsers.compare_runs import build_parser
from fastreid.evaluation.equal_terms import AT_EQUAL_TERMS
from fastreid.evaluation.report import read_results
from fastreid.utils.cli import command
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, check_output_file, named_output, write_json

METRICS = ("Rank-1", "mAP", "mINP")

Runs: TypeAlias = dict[str, dict[str, dict[str, float]]]  # {run: {protocol: {metric: value}}}


class Row(NamedTuple):
    """One run on one protocol."""

    protocol: str
    run: str
    values: list[float]  # percent
    differences: list[float | None]  # to the first run, in points; None: it is the first


class Summary(NamedTuple):
    """The content of every output."""

    metrics: list[str]
    rows: list[Row]
    seconds: dict[str, float]

    @property
    def headers(self) -> list[str]:
        more = len({row.run for row in self.rows}) > 1
        return ["protocol", "run", *self.metrics, *(f"{name} diff" for name in self.metrics if more)]


def by_name(pairs: list[tuple[str, Any]], option: str) -> dict[str, Any]:
    """Return the values of `option` by their names. Raises a UserError if a name comes twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise UserError(f"{option} {twice}= is given twice", "give each a name of its own")
    return values


def read_runs(named_places: list[tuple[str, str]]) -> Runs:
    """Read the results of runs by their names. Raises a UserError for runs of different protocols."""
    places = by_name(named_places, "--run")
    runs = {name: read_results(place, METRICS)["results"] for name, place in places.items()}
    protocols = next(iter(runs.values()))
    for name, results in runs.items():
        if results.keys() != protocols.keys():
            raise UserError(f"run {name} has protocols {list(results)}, expected {list(protocols)}")
    return runs


def shown_metrics(runs: Runs) -> list[str]:
    """Return `METRICS`, and those at equal terms that every protocol of every run has."""
    every = [metrics for results in runs.values() for metrics in results.values()]
    return [*METRICS, *(m for m in every[0] if AT_EQUAL_TERMS in m and all(m in other for other in every))]


def summarise(runs: Runs, seconds: dict[str, float]) -> Summary:
    """Compare every run with the first, protocol by protocol."""
    first, metrics = next(iter(runs.values())), shown_metrics(runs)
    rows = []
    for protocol in first:
        for name, results in runs.items():
            values = [results[protocol][metric] for metric in metrics]
            base = [None if results is first else first[protocol][metric] for metric in metrics]
            differences = [None if b is None else v - b for v, b in zip(values, base, strict=True)]
            rows.append(Row(protocol, name, values, differences))
    return Summary(metrics, rows, seconds)


def as_table(summary: Summary, style: str) -> str:
    """Return a table as `tabulate` writes it in that style; names are text, be they made of digits."""
    rows = [
        [
            row.protocol,
            row.run,
            *(f"{value:.1f}" for value in row.values),
            *("" if change is None else f"{change:+.1f}" for change in row.differences),
        ][: len(summary.headers)]
        for row in summary.rows
    ]
    alignment = ["left", "left", *["right"] * (len(summary.headers) - 2)]
    return tabulate(rows, summary.headers, style, colalign=alignment, disable_numparse=True)


def write_csv(path: str, summary: Summary) -> None:
    """Write the rows in full precision; the differences of the first run are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(summary.headers)
    for row in summary.rows:
        writer.writerow([row.protocol, row.run, *row.values, *row.differences][: len(summary.headers)])
    _write_text(path, text.getvalue())


def write_latex(path: str, summary: Summary) -> None:
    """Write a ``tabular`` with the rules of booktabs."""
    _write_text(path, as_table(summary, "latex_booktabs") + "\n")


def _write_text(path: str, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))  # names need not be valid text


def write_summary(path: str, summary: Summary) -> None:
    """Write JSON: the metrics of each run on each protocol, and the seconds."""
    content: dict[str, Any] = {}
    for row in summary.rows:
        content.setdefault(row.run, {})[row.protocol] = dict(zip(summary.metrics, row.values, strict=True))
    write_json(path, content | {"seconds": summary.seconds})


WRITERS: dict[str, Callable[[str, Summary], None]] = {
    ".json": write_summary,
    ".csv": write_csv,
    ".tex": write_latex,
}


@command(build_parser)
def main(args: argparse.Namespace) -> None:
    for path in args.output:
        check_output_file(path, "--output")
        if Path(path).suffix not in WRITERS:
            raise UserError(f"--output {path!r}: its name must end with {', '.join(WRITERS)}")
    summary = summarise(read_runs(args.run), by_name(args.seconds, "--seconds"))
    for path in args.output:
        with named_output(path):
            WRITERS[Path(path).suffix](path, summary)
    print(as_table(summary, "github"))
