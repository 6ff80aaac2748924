"""Speed measurements: ``python tools/benchmark.py NAME``."""

import sys

from fastreid.utils.cli import CommandLineParser, exit_cleanly
from tools.benchmarks import evaluation, generation, loader


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(description=__doc__)
    commands = parser.add_subparsers(metavar="NAME", required=True)
    for module in (evaluation, generation, loader):
        name = module.__name__.rpartition(".")[2]
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0], description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.main)
    return parser


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    with exit_cleanly(argv):
        args = build_parser().parse_args(argv)
        args.run(args)
