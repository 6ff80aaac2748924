"""Check everything that a training needs, before it starts: a table of what is fine, doubtful or wrong.

    python tools/check_setup.py --config-file configs/v2/base_stage1.yml
    python tools/check_setup.py --config-file configs/v2/base_stage2.yml --deep SOLVER.IMS_PER_BATCH 128

It looks at versions and device, the datasets, the pretrained files, batches and schedule, and estimates the
memory; it writes nothing. Exit code 2 if anything is wrong, else 0.
"""

import argparse
import json
import logging
import shutil
import sys

from fastreid.checks import as_json, check_setup, has_errors, summary, table
from fastreid.config import load_config
from fastreid.utils.cli import CommandLineParser, exit_cleanly, positive_number


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="as for tools/train_net.py")
    parser.add_argument("--eval-only", action="store_true", help="check for evaluating MODEL.WEIGHTS")
    parser.add_argument(
        "--num-gpus", type=positive_number, default=1, metavar="N", help="processes of the run"
    )
    parser.add_argument("--deep", action="store_true", help="decode every picture, too: takes minutes")
    parser.add_argument(
        "--workers",
        type=positive_number,
        default=4,
        metavar="N",
        help="threads of --deep (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys to change")
    return parser


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    with exit_cleanly(argv):
        args = build_parser().parse_intermixed_args(argv)
        if "--debug" in argv:
            logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
        cfg = load_config(args.config_file, args.opts)
        findings = check_setup(cfg, args.num_gpus, not args.eval_only, args.workers if args.deep else 0)
        if args.json:
            print(json.dumps(as_json(findings), indent=2))
        else:
            width = shutil.get_terminal_size((120, 40)).columns
            print(table(findings, width, color=sys.stdout.isatty()), f"\n{summary(findings)}", sep="\n")
        return 2 if has_errors(findings) else 0
