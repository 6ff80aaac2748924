"""Put the results of several evaluations into one table, with differences to the first, and into files.

python tools/compare_runs.py --run stage1=logs/demo/stage1 --run stage2=logs/demo/stage2 \\
    --output summary.json summary.csv summary.tex
"""

import argparse

from fastreid.utils.cli import CommandLineParser


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
        "--output", nargs="+", default=[], metavar="FILE", help="files to write: .json, .csv or .tex"
    )
    return parser
