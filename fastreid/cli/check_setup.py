"""Check everything that a training needs, before it starts: a table of what is fine, doubtful or wrong."""

import argparse
import json
import logging
import shutil
import sys

from fastreid.checks import as_json, check_setup, has_errors, summary, table
from fastreid.cli.parsers.check_setup import build_parser
from fastreid.engine import read_config
from fastreid.utils.cli import command


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
