"""Write an HTML report of a trained model, and PNGs of what it shows: rank lists, curves, cameras, views.

python tools/visualize.py --config-file logs/demo/stage2/config.yaml --output logs/demo/report
python tools/visualize.py --config-file logs/demo/stage2/config.yaml --compare logs/demo/stage1/config.yaml \\
    --output logs/demo/report DATASETS.TESTS "['CARGO_AG']"
"""

import argparse
from pathlib import Path

from fastreid.config import CfgNode
from fastreid.data import build_test_datasets
from fastreid.engine import default_setup
from fastreid.utils.cli import CommandLineParser, command
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import check_output_file
from fastreid.visualization.feature_map import METHODS
from fastreid.visualization.pngs import write_pngs
from fastreid.visualization.report import build_figures, write_report
from fastreid.visualization.run_summary import Contents, read_run_config, summarise_run, with_distinct_names


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__, allow_abbrev=False)
    parser.add_config("config.yaml of a training; KEY VALUE pairs are of both models")
    parser.add_argument("--weights", default="", metavar="FILE", help="default: model_best.pth beside it")
    parser.add_argument(
        "--compare", default="", metavar="FILE", help="config.yaml of a model to compare with"
    )
    parser.add_argument("--compare-weights", default="", metavar="FILE", help="of it, the same default")
    parser.add_argument("--output", required=True, metavar="DIR", help="report.html and the PNGs go there")
    parser.add_count("--queries", 40, "lists a protocol", type=_count)
    parser.add_count("--length", 10, "images a list", type=_count)
    parser.add_argument("--map", choices=METHODS, default="tsne", help="of the features (%(default)s)")
    parser.add_count("--map-images", 1000, "images in it", type=_count)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 10000, got {text!r}")
    return int(text)


def read_configs(args: argparse.Namespace) -> list[CfgNode]:
    """Read the configuration of the model, then that of the one to compare with, if any."""
    configs = [read_run_config(args.config_file, args.weights, args.opts)]
    if args.compare:
        configs.append(read_run_config(args.compare, args.compare_weights, args.opts))
    elif args.compare_weights:
        raise UserError("--compare-weights without --compare", "name that model's config.yaml, too")
    return configs


@command(build_parser)
def main(args: argparse.Namespace) -> None:
    report = Path(args.output) / "report.html"
    check_output_file(report, "--output")
    configs = read_configs(args)
    default_setup(configs[0])
    datasets = build_test_datasets(configs[0])
    contents = Contents(args.length, args.map, args.map_images)
    runs = with_distinct_names([summarise_run(cfg, datasets, contents) for cfg in configs])
    figures = build_figures(datasets, runs)
    lists = write_report(report, datasets, runs, figures, args.queries)
    pictures = write_pngs(args.output, datasets, runs[0], figures)
    print(f"{len(lists.lists)} rank lists, curves and tables: {report}; {len(pictures)} PNGs beside it")
