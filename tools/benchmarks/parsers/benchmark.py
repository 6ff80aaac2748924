"""Speed measurements: ``python tools/benchmark.py NAME``."""

from fastreid.utils.cli import CommandLineParser
from tools.benchmarks.parsers import evaluation, generation, gpu, loader, scale, search


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    commands = parser.add_subparsers(metavar="NAME", dest="name", required=True)
    for module in (evaluation, generation, gpu, loader, scale, search):
        name = module.__name__.rpartition(".")[2]
        first = module.__doc__.splitlines()[0]
        module.add_arguments(commands.add_parser(name, help=first, description=module.__doc__))
    return parser
