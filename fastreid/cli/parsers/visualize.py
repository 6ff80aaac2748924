"""Write an HTML report of a trained model, and PNGs of what it shows: rank lists, curves, cameras, views.

python tools/visualize.py --model logs/demo/stage2 --output logs/demo/report
python tools/visualize.py --model logs/demo/stage2 --compare logs/demo/stage1 --output logs/demo/report \\
    DATASETS.TESTS "['CARGO_AG']"
"""

import argparse

from fastreid.utils.cli import CommandLineParser


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__, allow_abbrev=False)
    parser.add_model("--weights")
    parser.add_argument("--compare", default="", metavar="PATH", help="a model to compare with, likewise")
    weights = "its checkpoint, where --compare names a config.yaml"
    parser.add_argument("--compare-weights", default="", metavar="FILE", help=weights)
    parser.add_argument("--output", required=True, metavar="DIR", help="report.html and the PNGs go there")
    parser.add_count("--queries", 40, "lists a protocol", type=_count)
    parser.add_count("--length", 10, "images a list", type=_count)
    maps = ("tsne", "pca")
    parser.add_argument("--map", choices=maps, default="tsne", help="of the features (%(default)s)")
    parser.add_count("--map-images", 1000, "images in it", type=_count)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 10000, got {text!r}")
    return int(text)
