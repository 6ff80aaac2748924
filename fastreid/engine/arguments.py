"""The command line of the training program, and the configuration that it describes."""

import argparse
import os
from pathlib import Path

from fastreid.config import CfgNode, check_config, load_config
from fastreid.engine.run_folder import check_output_dir
from fastreid.modeling import check_assets
from fastreid.utils.cli import CommandLineParser


def default_argument_parser() -> CommandLineParser:
    """Arguments of the training program. Parse with `parse_intermixed_args`: options may stand anywhere.

    Its complaints are a `UserError`.
    """
    parser = CommandLineParser(
        "Train or evaluate a model as a config file says.",
        epilog="Several machines: the same command on each, with --num-machines, --machine-rank and"
        " --dist-url; torchrun works too.",
        allow_abbrev=False,
    )
    parser.add_config("YAML file, e.g. configs/v2/base_stage1.yml", default="")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS, train nothing")
    parser.add_count("--num-gpus", 1, "processes on this machine")
    parser.add_count("--num-machines", 1, "machines of the run")
    parser.add_argument(
        "--machine-rank", type=int, default=0, metavar="R", help="number of this machine, from 0"
    )
    parser.add_argument("--dist-url", default="auto", metavar="URL", help="tcp://HOST:PORT of machine 0")
    return parser


def world_size_of(args: argparse.Namespace) -> int:
    """Processes of the run that these arguments, or torchrun, start."""
    return int(os.environ.get("WORLD_SIZE", args.num_gpus * args.num_machines))


def setup_config(args: argparse.Namespace) -> CfgNode:
    """The frozen and checked configuration: defaults, then the file, then the pairs of the command line.

    Raises:
        UserError: for an unknown key, a value that is not allowed, or a pretrained file that is missing.
    """
    cfg = load_config(args.config_file, args.opts)
    check_config(cfg, world_size_of(args), training=not args.eval_only)
    check_output_dir(cfg.OUTPUT_DIR)
    if not (args.resume and (Path(cfg.OUTPUT_DIR) / "last_checkpoint").exists()):
        check_assets(cfg, training=not args.eval_only)
    cfg.freeze()
    return cfg
