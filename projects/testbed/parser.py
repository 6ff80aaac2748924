"""Measure the view gap of the rendered benchmarks: a plain ViT at equal terms, by training persons.

    python projects/testbed/calibrate.py --output logs/testbed --processes 2 MODEL.DEVICE cpu

It renders the data, trains and evaluates, goes on where it was stopped, and writes gap.json, gap.md and
gap.png. KEY VALUE pairs hold for all trainings, and stand behind an option that takes one value. With more
than 1,000 persons SOLVER.MAX_EPOCH grows with them, so that every picture is seen as often.
"""

from pathlib import Path

from fastreid.cli.parsers.make_synthetic_benchmark import VIEW_GAPS
from fastreid.utils.cli import CommandLineParser, number_from_zero

CONFIGS = Path(__file__).with_name("configs")
LAYOUTS = sorted(path.stem for path in CONFIGS.glob("[A-Z]*.yml"))


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    parser.add_argument("--root", default="datasets/testbed", help="of the data (default: %(default)s)")
    parser.add_argument("--output", default="logs/testbed", help="folder (default: %(default)s)")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=["CARGO"], help="default: CARGO")
    parser.add_argument("--view-gaps", nargs="+", choices=VIEW_GAPS, default=["real"], help="default: real")
    parser.add_count("--identities", [1000, 100, 300, 3000], "to train on", nargs="+")
    parser.add_count("--test-ids", 400, "to test on")
    parser.add_count("--seeds", [1], "of the trainings", type=number_from_zero, nargs="+")
    parser.add_count("--processes", 1, "trainings at a time")
    parser.add_argument("--report-only", action="store_true", help="write the report of what is finished")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="configuration keys for all trainings")
    return parser
