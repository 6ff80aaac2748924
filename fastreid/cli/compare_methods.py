"""Train methods on one benchmark with several seeds, and put them into one table; docs/methods.md has one."""

import argparse
from pathlib import Path

from fastreid.cli.parsers.compare_methods import build_parser
from fastreid.comparison.plan import check_before, plan_trainings, read_contenders
from fastreid.comparison.report import write_comparison
from fastreid.comparison.run import Trainings, measure_costs
from fastreid.comparison.summary import summarise
from fastreid.comparison.tables import markdown
from fastreid.utils.cli import command
from fastreid.utils.file_io import check_output_file
from fastreid.utils.logger import setup_logger


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
