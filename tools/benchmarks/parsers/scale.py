"""Evaluation as data grows: of features that are there, and of image files by `train_net.py --eval-only`.

Both score the four protocols of CARGO's configuration: 1,000 queries, 20 gallery images a person. Files are
names of the same few JPEG pictures, encoded by a tiny model with random weights. Features are those of
`tools/benchmark.py search`, on disk and mapped into memory. Every size is a program of its own, with one
thread. Seconds are those that processors worked, in all processes together, whatever else they had to do.
Memory is the highest resident size, mapped features included; of files, where several processes share some,
that of all together without mapped files, such as libraries.
"""

from fastreid.utils.cli import CommandLineParser

PARTS = ("features", "files")


def add_arguments(parser: CommandLineParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: both")
    parser.add_count("--features", [125_000, 250_000, 500_000, 1_000_000], "their numbers", nargs="+")
    parser.add_count("--width", 768, "numbers of a feature")
    parser.add_count("--files", [12_500, 25_000, 50_000, 100_000], "their numbers", nargs="+")
    parser.add_count("--workers", 2, "of the loader")
