"""Rank evaluation and re-ranking against the straightforward methods, on the same inputs in the same run.

Inputs are clustered features, 20 gallery images a person, with a mean average precision near 0.5. Every
time is the best of the repeats, in which the compared methods take turns; memory is the highest resident size
during the call, less that before it.
"""

import os
from functools import partial

from fastreid.utils.cli import CommandLineParser, positive_number

PARTS = ("rank", "features", "rerank", "rerank-large")


def add_arguments(parser: CommandLineParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    sizes = {
        "default": [(3368, 15913), (2000, 51000)],
        "help": "queries x gallery images (default 3368x15913 2000x51000)",
    }
    parser.add_argument("--rank", nargs="+", type=size, metavar="QxG", **sizes)
    add_size = partial(parser.add_count, help="queries x gallery images", type=size, metavar="QxG")
    add_size("--features", "2000x1000000")
    add_size("--rerank", "1000x4000")
    add_size("--rerank-large", "312x50712")
    parser.add_count("--repeats", 3, "of which the best counts")
    parser.add_count("--threads", os.cpu_count() or 1, "of torch")


def size(text: str) -> tuple[int, int]:
    """Read numbers of queries and gallery images, such as 2000x51000; an argparse `type`."""
    queries, _, gallery = text.partition("x")
    return positive_number(queries), positive_number(gallery)
