"""Run the console command ``fastreid``; the programs in tools/ are the same commands, a file each.

Every module of this package has a ``main(argv)``, and one of its name in `parsers` the ``build_parser()`` of
its command line. Nothing heavy is imported before one of them is chosen, and its command line read.
"""

import sys
from importlib import import_module

from fastreid.utils.cli import (
    CommandLineParser,
    exit_cleanly,
    exit_during_imports,
    exit_on_user_error,
    read_command_line,
)
from fastreid.utils.errors import UserError, nearest_name
from fastreid.utils.output import secure_output

COMMANDS = {  # name: module, purpose
    "train": ("train_net", "train a model, or evaluate one"),
    "check": ("check_setup", "check everything that a training needs, before it starts"),
    "visualize": ("visualize", "write a report of a trained model, or of two"),
    "extract": ("extract_features", "write the features of a folder, a list or a dataset"),
    "search": ("search", "index extracted features, and answer query pictures"),
    "export": ("export", "write a trained model as ONNX files"),
    "profile": ("profile_complexity", "count parameters, operations, memory and latency of a model"),
    "compare": ("compare_methods", "train methods with several seeds, and put them into one table"),
    "compare-runs": ("compare_runs", "put the results of several evaluations into one table"),
    "convert": ("convert_checkpoint", "convert a checkpoint of a method's authors"),
    "make-csv": ("make_csv", "write the CSV file of a folder of person crops"),
    "render": ("make_synthetic_benchmark", "render people in the layout of a benchmark"),
}


def build_parser() -> CommandLineParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items()]
    parser = CommandLineParser(
        "\n".join(["Aerial-ground person re-identification.", "", "commands:", *lines]),
        prog="fastreid",
        usage="fastreid COMMAND …",
        epilog="fastreid COMMAND --help explains a command.",
    )
    parser.add_argument("command", metavar="COMMAND", help="one of those above; what follows is its own")
    return parser


def main() -> None:
    """Run the command that the command line names, as a program of the name ``fastreid COMMAND``."""
    secure_output()
    with exit_cleanly(sys.argv):
        at = next((i for i, word in enumerate(sys.argv[1:], 1) if not word.startswith("-")), len(sys.argv))
        name = build_parser().parse_args(sys.argv[1 : at + 1]).command
        if name not in COMMANDS:
            nearest = nearest_name(name, list(COMMANDS))
            raise UserError(f"unknown command {name!r} (see fastreid --help).{nearest}")
        sys.argv = [f"fastreid {name}", *sys.argv[1:at], *sys.argv[at + 1 :]]
    run(f"fastreid.cli.{COMMANDS[name][0]}", "__main__")


def run(module: str, name: str) -> None:
    """Run a module's ``main`` as the program whose file has the ``__name__`` `name`, and exit.

    In a process that the program has spawned, and that imports its file again, nothing runs. A signal during
    the imports, which take seconds, ends either at once. The command line is read before them: help and a
    mistake in it take no time.

    Raises:
        SystemExit: at the end; with 2, after one line, where a package is missing.
    """
    exit_during_imports(name)
    if name == "__main__":
        package, _, program = module.rpartition(".")
        with exit_on_user_error(debug="--debug" in sys.argv):
            read_command_line(_import(f"{package}.parsers.{program}").build_parser)
            work = _import(module)
        sys.exit(work.main())


def _import(module: str) -> object:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("fastreid", "tools"):
            raise
        problem = f"Python package {error.name} is missing"
        raise UserError(problem, "pip install -r requirements.txt") from error
