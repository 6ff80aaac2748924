"""Write the embedded benchmark: rendered people in the exact layout of a real aerial-ground benchmark.

    python tools/make_synthetic_benchmark.py --benchmark CARGO --root datasets --workers 2

An interrupted run is completed by the same command. A folder that this tool did not write is never touched.
"""

import argparse

from fastreid.utils.cli import CommandLineParser

VIEW_GAPS = ("real", "none")
BENCHMARKS = ("CARGO", "AG_ReID_v1", "AG_ReID_v2", "LAGPeR", "G2APS-ReID")
SEEN = (
    "images of one identity in each camera that sees it: one camera of every view in AG_ReID_v1 and v2, two"
    " aerial and two ground cameras in the others; a quarter of a test identity's, at least one, are queries"
)


def height_and_width(text: str) -> tuple[int, int]:
    """Read ``"256x128"`` as (256, 128)."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 256x128")
    return int(height), int(width)


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    parser.add_argument("--benchmark", required=True, metavar="NAME", help=f"{', '.join(BENCHMARKS)} or all")
    parser.add_argument("--root", required=True, metavar="DIR", help="the benchmark's folder is made in here")
    number = {"type": int, "metavar": "N"}
    parser.add_count("--train-ids", 100, "identities to train on", **number)
    parser.add_count("--test-ids", 100, "identities to test on, others than those", **number)
    parser.add_count("--images-per-camera", 4, SEEN, **number)
    parser.add_count("--seed", 1111, "the same seed gives the same bytes", **number)
    size = {"type": height_and_width, "default": (256, 128), "metavar": "HxW"}
    parser.add_argument("--size", **size, help="pixels (default 256x128)")
    what = "real: views show different things of a person; none: all views show all (default %(default)s)"
    parser.add_argument("--view-gap", choices=VIEW_GAPS, default="real", help=what)
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a processor)")
    return parser
