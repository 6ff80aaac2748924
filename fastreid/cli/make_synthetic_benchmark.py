"""Write the embedded benchmark: rendered people in the exact layout of a real aerial-ground benchmark."""

import argparse

from fastreid.cli.parsers.make_synthetic_benchmark import build_parser
from fastreid.rendered import LAYOUTS, BenchmarkSpec, write_benchmark
from fastreid.utils.cli import command
from fastreid.utils.errors import UserError, nearest_name
from fastreid.utils.logger import setup_logger


@command(build_parser, "the same command completes it")
def main(args: argparse.Namespace) -> None:
    names, known = list(LAYOUTS) if args.benchmark == "all" else [args.benchmark], [*LAYOUTS, "all"]
    if args.benchmark not in known:
        near = nearest_name(args.benchmark, known)
        raise UserError(f"unknown benchmark {args.benchmark!r}.{near}", f"choose from {', '.join(known)}")
    spec = BenchmarkSpec(
        args.train_ids, args.test_ids, args.images_per_camera, args.size, args.seed, args.view_gap
    )
    setup_logger()
    for name in names:
        write_benchmark(name, args.root, spec, args.workers)
