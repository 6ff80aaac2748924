"""Measure the view gap of the rendered benchmarks: a plain ViT at equal terms, by training persons.

    python projects/testbed/calibrate.py --output logs/testbed --processes 2 MODEL.DEVICE cpu

It renders the data, trains and evaluates, goes on where it was stopped, and writes gap.json, gap.md and
gap.png. KEY VALUE pairs hold for all trainings, and stand behind an option that takes one value.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fastreid.utils.cli import CommandLineParser, command, exit_during_imports

exit_during_imports(__name__)

from matplotlib.figure import Figure
from tabulate import tabulate

from fastreid.comparison.plan import Contender, Training
from fastreid.comparison.run import Trainings
from fastreid.config import check_config, load_config
from fastreid.evaluation.equal_terms import metric_names
from fastreid.evaluation.report import read_results
from fastreid.rendered import VIEW_GAPS, BenchmarkSpec, write_benchmark
from fastreid.utils.file_io import atomic_write, check_output_file, write_json
from fastreid.utils.logger import setup_logger

CONFIGS = Path(__file__).with_name("configs")
LAYOUTS = sorted(path.stem for path in CONFIGS.glob("[A-Z]*.yml"))
IMAGES_PER_CAMERA = {"CARGO": 2, "AG_ReID_v2": 3}
Row = dict[str, Any]


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    parser.add_argument("--root", default="datasets/testbed", help="of the data (default: %(default)s)")
    parser.add_argument("--output", default="logs/testbed", help="folder (default: %(default)s)")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=["CARGO"], help="default: CARGO")
    parser.add_argument("--view-gaps", nargs="+", choices=VIEW_GAPS, default=["real"], help="default: real")
    counts = [1000, 100, 300, 3000]
    parser.add_argument(
        "--identities", type=int, nargs="+", default=counts, help=f"to train on; default: {counts}"
    )
    parser.add_argument("--test-ids", type=int, default=400, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="default: 1")
    parser.add_count("--processes", 1, "trainings at a time")
    parser.add_argument("--report-only", action="store_true", help="write the report of what is finished")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="configuration keys for all trainings")
    return parser


@command(build_parser, "the same command goes on")
def main(args: argparse.Namespace) -> None:
    setup_logger()
    output = Path(args.output)
    check_output_file(output / "gap.json", "--output")
    trainings = [
        plan_training(args, layout, gap, identities, seed)
        for identities in args.identities
        for layout in args.layouts
        for gap in args.view_gaps
        for seed in args.seeds
    ]
    running = Trainings(trainings, args.processes)
    if not args.report_only:
        with running:
            running.run()
    write_report([read_row(training) for training in trainings if training.finished], output)
    running.check()


def plan_training(args: argparse.Namespace, layout: str, gap: str, identities: int, seed: int) -> Training:
    """Render the data of one training, as far as it is not there, and plan it."""
    root = Path(args.root) / f"{gap}_ids{identities}"
    if not args.report_only:
        spec = BenchmarkSpec(identities, args.test_ids, IMAGES_PER_CAMERA[layout], (64, 32), view_gap=gap)
        write_benchmark(layout, root, spec, args.processes)
    file, options = str(CONFIGS / f"{layout}.yml"), ("DATASETS.ROOT", str(root), *args.opts)
    cfg = load_config(file, options)
    check_config(cfg)
    cfg.freeze()
    name = f"{layout}_{gap}_ids{identities}"
    return Training(Contender(name, file, cfg, options), seed, Path(args.output) / name / f"seed{seed}")


def read_row(training: Training) -> Row:
    """Read the mAP at equal terms of every protocol, with what was trained."""
    distractors = training.contender.cfg.TEST.EQUAL_TERMS.DISTRACTORS
    _, mean_ap = metric_names(distractors)
    results = read_results(str(training.folder), [mean_ap])["results"]
    layout, gap, identities = training.contender.name.rsplit("_", 2)
    return {
        "layout": layout,
        "view gap": gap,
        "identities": int(identities.removeprefix("ids")),
        "seed": training.seed,
        "distractors": distractors,
        "mAP": {name: values[mean_ap] for name, values in results.items()},
    }


def write_report(rows: Sequence[Row], output: Path) -> None:
    """Write gap.json, gap.md and gap.png, and print the table."""
    write_json(output / "gap.json", list(rows))
    text = "\n\n".join(_table(layout, rows) for layout in sorted({row["layout"] for row in rows}))
    with atomic_write(output / "gap.md", "w") as file:
        file.write(text + "\n")
    _draw([row for row in rows if row["layout"] == "CARGO"], output / "gap.png")
    print(text)


def within_and_across(scores: dict[str, float]) -> tuple[float, float]:
    """Return the means of CARGO's protocols within a view and of those across views, one way."""
    within, across = (("CARGO_AA", "CARGO_GG"), ("CARGO_A2G", "CARGO_G2A"))
    return tuple(statistics.mean(scores[name] for name in names) for names in (within, across))


def _table(layout: str, rows: Sequence[Row]) -> str:
    own = sorted(
        (row for row in rows if row["layout"] == layout),
        key=lambda row: (row["view gap"], row["identities"], row["seed"]),
    )
    lines = []
    for row in own:
        line = [row["view gap"], row["identities"], row["seed"], *(f"{s:.1f}" for s in row["mAP"].values())]
        if layout == "CARGO":
            within, across = within_and_across(row["mAP"])
            line += [f"{within:.1f}", f"{across:.1f}", f"{within - across:.1f}"]
        lines.append(line)
    headers = ["view gap", "identities", "seed", *own[0]["mAP"]]
    headers += ["within a view", "across views", "gap"] if layout == "CARGO" else []
    title = f"{layout}, mAP in percent with one match and {own[0]['distractors']} distractors"
    return f"{title}\n\n" + tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def _draw(rows: Sequence[Row], path: Path) -> None:
    """Draw within and across against the number of training persons, the mean over seeds."""
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for gap, style in zip(VIEW_GAPS, ("-", "--"), strict=True):
        counts = sorted({row["identities"] for row in rows if row["view gap"] == gap})
        means = [
            [
                within_and_across(row["mAP"])
                for row in rows
                if row["view gap"] == gap and row["identities"] == count
            ]
            for count in counts
        ]
        for place, name in enumerate(("within a view", "across views")):
            values = [statistics.mean(pair[place] for pair in pairs) for pairs in means]
            if values:
                axes.plot(counts, values, style, marker="o", color=f"C{place}", label=f"{name}, {gap}")
    axes.set_xscale("log")
    axes.set_xlabel("training persons")
    axes.set_ylabel("mAP at equal terms, percent")
    axes.set_ylim(0, 100)
    if rows:
        axes.legend()
    figure.tight_layout()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


if __name__ == "__main__":
    main()
