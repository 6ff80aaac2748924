"""Train methods on one benchmark with several seeds, and put them into one table; docs/methods.md has one.

    python tools/compare_methods.py --methods configs/CARGO/vit_baseline.yml configs/CARGO/bot.yml \\
        --seeds 3 --output logs/compare/CARGO

The first method is what the others are compared with. A method that starts from another's checkpoint, as
SD-ReID's Stage 2, gets the final model of the same seed. The same command goes on where it was stopped. KEY
VALUE pairs stand behind another option than --methods.
"""

import argparse
from pathlib import Path

from fastreid.comparison.plan import check_before, plan_trainings, read_contenders
from fastreid.comparison.report import write_comparison
from fastreid.comparison.run import Trainings, measure_costs
from fastreid.comparison.summary import summarise
from fastreid.comparison.tables import markdown
from fastreid.utils.cli import CommandLineParser, command
from fastreid.utils.file_io import check_output_file
from fastreid.utils.logger import setup_logger


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


@command(build_parser, when_stopped="the same command goes on from here")
def main(args: argparse.Namespace) -> None:
    setup_logger()
    output = Path(args.output)
    contenders = read_contenders(args.methods, args.opts)
    check_output_file(output / "comparison.md", "--output")
    trainings = plan_trainings(contenders, args.seeds, output)
    running = Trainings(trainings, args.processes)
    if not args.report_only:
        check_before(contenders, output)
        with running:
            running.run()
        measure_costs(trainings, args.batch_size)
        first = contenders[0]  # without it there is nothing to compare with
        if not any(training.finished for training in trainings if training.contender is first):
            running.check()
    comparison = summarise(trainings)
    paths = write_comparison(comparison, output)
    print(markdown(comparison))
    print("written:", ", ".join(map(str, paths)))
    running.check()
