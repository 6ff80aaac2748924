"""Speed measurements: ``python tools/benchmark.py NAME``; each NAME is a file in tools/benchmarks/."""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fastreid.utils.cli import CommandLineParser, exit_cleanly, exit_during_imports

exit_during_imports(__name__)


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(description=__doc__)
    commands = parser.add_subparsers(metavar="NAME", required=True)
    for path in sorted(Path(__file__).with_name("benchmarks").glob("*.py")):
        module = importlib.import_module(f"tools.benchmarks.{path.stem}")
        command = commands.add_parser(
            path.stem, help=module.__doc__.splitlines()[0], description=module.__doc__
        )
        module.add_arguments(command)
        command.set_defaults(run=module.main)
    return parser


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = build_parser()  # which imports the measurements
    with exit_cleanly(argv):
        args = parser.parse_args(argv)
        args.run(args)


if __name__ == "__main__":
    main()
