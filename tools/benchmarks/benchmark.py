"""Speed measurements, a module of this package each."""

import argparse

from fastreid.utils.cli import command
from tools.benchmarks import evaluation, generation, gpu, loader, scale, search
from tools.benchmarks.parsers.benchmark import build_parser

MEASUREMENTS = {
    "evaluation": evaluation.main,
    "generation": generation.main,
    "gpu": gpu.main,
    "loader": loader.main,
    "scale": scale.main,
    "search": search.main,
}


@command(build_parser)
def main(args: argparse.Namespace) -> None:
    MEASUREMENTS[args.name](args)
