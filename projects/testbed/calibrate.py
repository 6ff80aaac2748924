"""Measure the view gap of the rendered benchmarks, as `parser` describes."""

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fastreid.utils.cli import command, read_before_imports
from projects.testbed.parser import CONFIGS, build_parser

read_before_imports(__name__, build_parser)

from matplotlib.figure import Figure
from tabulate import tabulate

from fastreid.comparison.plan import Contender, Training, check_earlier
from fastreid.comparison.run import Trainings
from fastreid.config import check_config, load_config
from fastreid.evaluation.equal_terms import metric_names
from fastreid.evaluation.report import read_results
from fastreid.rendered import VIEW_GAPS, BenchmarkSpec, write_benchmark
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, check_output_file, write_json
from fastreid.utils.logger import setup_logger

IMAGES_PER_CAMERA = {"CARGO": 2, "AG_ReID_v2": 3}
ENOUGH_FOR = 1000  # training persons, the epochs that a configuration says
Row = dict[str, Any]


@command(build_parser, "the same command goes on")
def main(args: argparse.Namespace) -> None:
    setup_logger()
    output = Path(args.output)
    check_output_file(output / "gap.json", "--output")
    if not args.report_only:
        train(args, output)
    write_report(output)


def train(args: argparse.Namespace, output: Path) -> None:
    """Render and train what is not finished."""
    plans = [
        plan_training(args, layout, gap, identities, seed)
        for identities in args.identities
        for layout in args.layouts
        for gap in args.view_gaps
        for seed in args.seeds
    ]
    for training, spec in plans:
        root = training.contender.cfg.DATASETS.ROOT
        write_benchmark(training.contender.cfg.DATASETS.NAMES[0], root, spec, args.processes)
    running = Trainings([training for training, _ in plans], args.processes)
    with running:
        running.run()
    running.check()


def plan_training(
    args: argparse.Namespace, layout: str, gap: str, identities: int, seed: int
) -> tuple[Training, BenchmarkSpec]:
    """Plan and check one training, and the data that it needs.

    Raises:
        UserError: for a mistake in a setting, or a folder with another training.
    """
    images = IMAGES_PER_CAMERA[layout]
    spec = BenchmarkSpec(identities, args.test_ids, images, (64, 32), view_gap=gap)
    name = f"{layout}_{gap}_ids{identities}"
    root = Path(args.root) / f"{gap}_ids{identities}_test{args.test_ids}"
    file = str(CONFIGS / f"{layout}.yml")
    epochs = math.ceil(load_config(file, args.opts).SOLVER.MAX_EPOCH * max(1, identities / ENOUGH_FOR))
    options = ("DATASETS.ROOT", str(root), *args.opts, "SOLVER.MAX_EPOCH", str(epochs))
    cfg = load_config(file, [*options, "MODEL.SEED", str(seed)])
    check_config(cfg)
    if not cfg.TEST.EQUAL_TERMS.DISTRACTORS:
        raise UserError("TEST.EQUAL_TERMS.DISTRACTORS is 0: nothing can be compared", "leave it as it is")
    cfg.freeze()
    folder = Path(args.output) / f"{name}_test{args.test_ids}" / f"seed{seed}"
    training = Training(Contender(name, file, cfg, options), seed, folder)
    check_earlier(training)
    return training, spec


def read_rows(output: Path) -> list[Row]:
    """Read the mAP at equal terms of every protocol of every finished training below `output`.

    Raises:
        UserError: if there is none, or one cannot be read.
    """
    rows = []
    for path in sorted(output.glob("*_test*/seed*/results.json")):
        try:
            rows.append(_read_row(path))
        except (LookupError, TypeError, ValueError, UserError) as error:
            again = f"remove {path.parent}: the same command trains it again"
            raise UserError(f"{path} is not what a training has left", again) from error
    if not rows:
        raise UserError(f"{output}: no finished training yet", "run without --report-only")
    keys = ("layout", "view gap", "distractors", "test identities", "identities", "seed")
    return sorted(rows, key=lambda row: [row[key] for key in keys])


def _read_row(path: Path) -> Row:
    content = read_results(path)
    distractors = content["config"]["TEST"]["EQUAL_TERMS"]["DISTRACTORS"]
    _, mean_ap = metric_names(distractors)
    layout, gap, identities, test_ids = path.parts[-3].rsplit("_", 3)
    row = {
        "layout": layout,
        "view gap": gap,
        "identities": int(identities.removeprefix("ids")),
        "test identities": int(test_ids.removeprefix("test")),
        "seed": int(content["config"]["MODEL"]["SEED"]),
        "distractors": distractors,
        "mAP": {name: float(values[mean_ap]) for name, values in content["results"].items()},
    }
    return row | {key: float(value) for key, value in content.get("view_gap", {}).items()}


def write_report(output: Path) -> None:
    """Write gap.json, gap.md and gap.png of all finished trainings, and print the table."""
    rows = read_rows(output)
    write_json(output / "gap.json", rows)
    text = "\n\n".join(_table(layout, rows) for layout in sorted({row["layout"] for row in rows}))
    with atomic_write(output / "gap.md", "w") as file:
        file.write(text + "\n")
    if measured := [row for row in rows if "gap" in row]:
        _draw(measured, output / "gap.png")
    print(text)


def _table(layout: str, rows: Sequence[Row]) -> str:
    own = [row for row in rows if row["layout"] == layout]
    labels = ("view gap", "identities", "test identities", "seed", "distractors")
    gaps = [key for key in ("within", "across", "gap") if any(key in row for row in own)]
    protocols = list(dict.fromkeys(name for row in own for name in row["mAP"]))
    lines = [
        [*(row[label] for label in labels)]
        + [f"{row['mAP'][name]:.1f}" if name in row["mAP"] else "" for name in protocols]
        + [f"{row[key]:.1f}" if key in row else "" for key in gaps]
        for row in own
    ]
    headers = [*labels, *protocols, *gaps]
    title = f"{layout}, mAP in percent with one match and so many distractors"
    return f"{title}\n\n" + tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def _draw(rows: Sequence[Row], path: Path) -> None:
    """Draw within and across against the number of training persons, the mean over seeds."""
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for gap, style in zip(VIEW_GAPS, ("-", "--"), strict=True):
        own = [row for row in rows if row["view gap"] == gap]
        counts = sorted({row["identities"] for row in own})
        for place, key in enumerate(("within", "across")):
            means = [statistics.mean(row[key] for row in own if row["identities"] == n) for n in counts]
            if counts:
                axes.plot(counts, means, style, marker="o", color=f"C{place}", label=f"{key}, {gap}")
    axes.set_xscale("log")
    axes.set_xlabel("training persons")
    axes.set_ylabel("mAP at equal terms, percent")
    axes.set_ylim(0, 100)
    axes.legend()
    figure.tight_layout()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


if __name__ == "__main__":
    main()
