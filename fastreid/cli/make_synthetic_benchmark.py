"""Write the embedded benchmark: rendered people in the exact layout of a real aerial-ground benchmark.

    python tools/make_synthetic_benchmark.py --benchmark CARGO --root datasets --workers 2

An interrupted run is completed by the same command. A folder that this tool did not write is never touched.
"""

import argparse

from fastreid.rendered import LAYOUTS, VIEW_GAPS, BenchmarkSpec, write_benchmark
from fastreid.utils.cli import CommandLineParser, command
from fastreid.utils.errors import UserError, nearest_name
from fastreid.utils.logger import setup_logger

COUNTS = {
    "train_ids": "identities to train on",
    "test_ids": "identities to test on, others than those",
    "images_per_camera": "images of one identity in each camera that sees it: one camera of every view in "
    "AG_ReID_v1 and v2, two aerial and two ground cameras in the others; a quarter of a test identity's, "
    "at least one, are queries",
    "seed": "the same seed gives the same bytes",
}


def height_and_width(text: str) -> tuple[int, int]:
    """Read ``"256x128"`` as (256, 128)."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 256x128")
    return int(height), int(width)


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    default = BenchmarkSpec()
    parser.add_argument("--benchmark", required=True, metavar="NAME", help=f"{', '.join(LAYOUTS)} or all")
    parser.add_argument("--root", required=True, metavar="DIR", help="the benchmark's folder is made in here")
    for option, what in COUNTS.items():
        value = getattr(default, option)
        flag = f"--{option.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=value, metavar="N", help=f"{what} (default %(default)s)")
    parser.add_argument(
        "--size", type=height_and_width, default=default.size, metavar="HxW", help="pixels (default 256x128)"
    )
    parser.add_argument(
        "--view-gap",
        choices=VIEW_GAPS,
        default=default.view_gap,
        help="real: views show different things of a person; none: all views show all (default %(default)s)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a processor)")
    return parser


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
