"""Speed measurements, a module of this package each; what one of them does not need is not imported."""

import argparse
from importlib import import_module

from fastreid.utils.cli import command
from tools.benchmarks.parsers.benchmark import build_parser


@command(build_parser)
def main(args: argparse.Namespace) -> None:
    import_module(f"tools.benchmarks.{args.name}").main(args)
