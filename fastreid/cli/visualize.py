"""Write an HTML report of a trained model, and PNGs of what it shows: rank lists, curves, cameras, views."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fastreid.cli.parsers.visualize import build_parser
from fastreid.config import CfgNode, check_config
from fastreid.data import build_test_datasets
from fastreid.engine import default_setup, trained_config
from fastreid.utils.cli import command
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import check_output_file
from fastreid.visualization.figures import build_figures
from fastreid.visualization.pngs import write_pngs
from fastreid.visualization.report import write_report
from fastreid.visualization.run_summary import Contents, summarise_run, with_distinct_names


def read_configs(args: argparse.Namespace) -> list[CfgNode]:
    """Read the configuration of the model, then that of the one to compare with, if any."""
    models = [(args.model, args.config_file)]
    if args.compare.endswith((".yaml", ".yml")):
        models.append((args.compare_weights, args.compare))
    elif args.compare_weights:
        raise UserError("--compare-weights without --compare config.yaml", "name the model in --compare")
    elif args.compare:
        models.append((args.compare, ""))
    return [read_config(*model, args.opts, args.imports) for model in models]


def read_config(model: str, config_file: str, options: Sequence[str], imports: Sequence[str]) -> CfgNode:
    """Read the frozen configuration of a model; a file alone is that of the run whose folder holds it."""
    if not model and not config_file:
        raise UserError("no model is named", "add --model PATH, a checkpoint or the folder of a run")
    cfg = trained_config(model or Path(config_file).parent, config_file, options, imports)
    check_config(cfg, training=False)
    cfg.freeze()
    return cfg


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
