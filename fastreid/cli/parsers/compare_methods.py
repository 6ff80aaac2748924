"""Train methods on one benchmark with several seeds, and put them into one table; docs/methods.md has one.

    python tools/compare_methods.py --methods configs/CARGO/vit_baseline.yml configs/CARGO/bot.yml \\
        --seeds 3 --output logs/compare/CARGO

The first method is what the others are compared with. A method that starts from another's checkpoint, as
SD-ReID's Stage 2, gets the final model of the same seed. The same command goes on where it was stopped. KEY
VALUE pairs stand behind another option than --methods.
"""

from fastreid.utils.cli import CommandLineParser


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    parser.add_argument(
        "--methods", nargs="+", required=True, metavar="FILE", help="configurations of one benchmark"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="of trainings and tables")
    parser.add_count("--seeds", 3, "trainings of each method")
    parser.add_count("--processes", 1, "trainings at a time")
    parser.add_count("--batch-size", 64, "images at a time where extraction is timed")
    parser.add_argument("--report-only", action="store_true", help="train nothing, show what is finished")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys to change, for all methods")
    return parser
