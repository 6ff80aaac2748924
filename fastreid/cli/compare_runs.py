"""Put the results of several evaluations into one table, and into a JSON file.

python tools/compare_runs.py --run stage1=logs/demo/stage1 --run stage2=logs/demo/stage2 --output summary.json
"""

import argparse
from collections import Counter
from typing import Any

from tabulate import tabulate

from fastreid.evaluation.equal_terms import AT_EQUAL_TERMS
from fastreid.evaluation.report import read_results
from fastreid.utils.cli import CommandLineParser, command
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import check_output_file, named_output, write_json

METRICS = ("Rank-1", "mAP", "mINP")


def named(text: str) -> tuple[str, str]:
    """Read ``"NAME=VALUE"`` as (NAME, VALUE)."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def named_number(text: str) -> tuple[str, float]:
    """Read ``"NAME=1.5"`` as (NAME, 1.5)."""
    name, value = named(text)
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} in {text!r} is not a number") from None


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    parser.add_argument(
        "--run",
        type=named,
        action="append",
        required=True,
        metavar="NAME=PLACE",
        help="OUTPUT_DIR of a training or an evaluation, or a file of results in it",
    )
    parser.add_argument(
        "--seconds",
        type=named_number,
        action="append",
        default=[],
        metavar="NAME=S",
        help="a duration to record",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="JSON to write: the metrics of each run, the seconds"
    )
    return parser


def by_name(pairs: list[tuple[str, Any]], option: str) -> dict[str, Any]:
    """Return the values of `option` by their names. Raises a UserError if a name comes twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise UserError(f"{option} {twice}= is given twice", "give each a name of its own")
    return values


def read_runs(named_places: list[tuple[str, str]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return ``{run: {protocol: {metric: value}}}``. Raises a UserError for runs of different protocols."""
    places = by_name(named_places, "--run")
    runs = {name: read_results(place, METRICS)["results"] for name, place in places.items()}
    protocols = next(iter(runs.values()))
    for name, results in runs.items():
        if results.keys() != protocols.keys():
            raise UserError(f"run {name} has protocols {list(results)}, expected {list(protocols)}")
    return runs


def shown_metrics(runs: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Return `METRICS`, and those at equal terms that every protocol of every run has."""
    every = [metrics for results in runs.values() for metrics in results.values()]
    return [*METRICS, *(m for m in every[0] if AT_EQUAL_TERMS in m and all(m in other for other in every))]


@command(build_parser)
def main(args: argparse.Namespace) -> None:
    if args.output:
        check_output_file(args.output, "--output")
    runs = read_runs(args.run)
    seconds = by_name(args.seconds, "--seconds")
    protocols, metrics = list(next(iter(runs.values()))), shown_metrics(runs)
    rows = [
        [protocol, name, *(results[protocol][metric] for metric in metrics)]
        for protocol in protocols
        for name, results in runs.items()
    ]
    if args.output:
        summary = {
            name: {protocol: {m: results[protocol][m] for m in metrics} for protocol in protocols}
            for name, results in runs.items()
        }
        with named_output(args.output):
            write_json(args.output, summary | {"seconds": seconds})
    print(tabulate(rows, headers=["protocol", "run", *metrics], tablefmt="github", floatfmt=".1f"))
