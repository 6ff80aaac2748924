"""Speed measurements: ``python tools/benchmark.py NAME``."""

import argparse

from fastreid.utils.cli import CommandLineParser, command
from tools.benchmarks import evaluation, generation, gpu, loader, scale, search


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    commands = parser.add_subparsers(metavar="NAME", required=True)
    for module in (evaluation, generation, gpu, loader, scale, search):
        name = module.__name__.rpartition(".")[2]
        measurement = commands.add_parser(
            name, help=module.__doc__.splitlines()[0], description=module.__doc__
        )
        module.add_arguments(measurement)
        measurement.set_defaults(run=module.main)
    return parser


@command(build_parser)
def main(args: argparse.Namespace) -> None:
    args.run(args)
