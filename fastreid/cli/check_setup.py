"""Check everything that a training needs, before it starts: a table of what is fine, doubtful or wrong.

    python tools/check_setup.py --config-file configs/v2/base_stage1.yml
    python tools/check_setup.py --config-file configs/v2/base_stage2.yml --deep SOLVER.IMS_PER_BATCH 128

It takes the options of tools/train_net.py, so a command is checked by changing the name of the program. It
looks at versions and device, the datasets, the pretrained files, batches and schedule, and estimates the
memory; it writes nothing. Exit code 2 if anything is wrong, else 0.
"""

import argparse
import json
import logging
import shutil
import sys

from fastreid.checks import as_json, check_setup, has_errors, summary, table
from fastreid.engine import default_argument_parser, read_config
from fastreid.utils.cli import CommandLineParser, command


def build_parser() -> CommandLineParser:
    parser = default_argument_parser()
    parser.description, parser.epilog = __doc__, None
    later = "MODEL.WEIGHTS is still to be trained: do not look for it"
    parser.add_argument("--weights-later", action="store_true", help=later)
    parser.add_argument("--deep", action="store_true", help="decode every picture, too: takes minutes")
    parser.add_count("--workers", 4, "threads of --deep")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser


@command(build_parser)
def main(args: argparse.Namespace) -> int:
    if "debug" in args:
        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
    cfg = read_config(args)
    findings = check_setup(
        cfg,
        args.num_gpus,
        not args.eval_only,
        args.workers if args.deep else 0,
        machines=args.num_machines,
        resume=args.resume,
        weights_later=args.weights_later,
    )
    if args.json:
        print(json.dumps(as_json(findings), indent=2))
    else:
        width = shutil.get_terminal_size((120, 40)).columns
        print(table(findings, width, color=sys.stdout.isatty()), f"\n{summary(findings)}", sep="\n")
    return 2 if has_errors(findings) else 0
