"""Train and score every setting of the study of Stage 2, as `parser` describes."""

import argparse
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fastreid.utils.cli import command, read_before_imports
from projects.stage2_study.parser import build_parser

read_before_imports(__name__, build_parser)

import torch

from fastreid.config import check_config
from fastreid.rendered import BenchmarkSpec, write_benchmark
from fastreid.utils.file_io import check_output_folder
from fastreid.utils.logger import setup_logger
from projects.stage2_study.diagnostics import diagnose_generated, diagnose_real
from projects.stage2_study.encoders import Encoder
from projects.stage2_study.joining import Ways, baseline, join_generated
from projects.stage2_study.report import write_report
from projects.stage2_study.scoring import Trial, check_trials, save_trial, score
from projects.stage2_study.settings import REFERENCE, SETTINGS, Retrieval, Setting
from projects.stage2_study.trials import (
    generate,
    stage2_config,
    train_generator,
    train_perceptron,
    trained_parameters,
)

FIRST = "CARGO", 1  # layout and seed of what one encoder is enough for
IMAGES_PER_CAMERA = {"CARGO": 2, "AG_ReID_v2": 3}
logger = logging.getLogger("fastreid.study")


@command(build_parser, "the same command goes on")
def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    setup_logger()
    output = Path(args.output)
    check_output_folder(output, "--output")
    check_trials(output, args.identities)
    if not args.report_only:
        run_trials(args, output)
    write_report(output)


def run_trials(args: argparse.Namespace, output: Path) -> None:
    """Train and score what is not finished; leave the results and the encoded images."""
    planned = list(plan(args, output))
    for encoder, _ in planned:
        check_config(encoder.config("base_stage1"))
        stage2_config(encoder, encoder.folder)
    for encoder, settings in planned:
        render(encoder, args.test_ids, args.threads)
        encoder.train()
        for setting in settings:
            run_setting(encoder, setting)
        setup_logger()  # closes the last run's log file
        shutil.rmtree(encoder.folder / "runs", ignore_errors=True)


def plan(args: argparse.Namespace, output: Path) -> Iterator[tuple[Encoder, list[Setting]]]:
    """Give the encoders in turn, each with the settings to train on it: what says most comes first."""
    names = {REFERENCE, *(args.settings or [setting.name for setting in SETTINGS])}
    chosen = [setting for setting in SETTINGS if setting.name in names]
    data, options = Path(args.root), tuple(args.opts)
    encoders = [
        Encoder(layout, seed, args.identities, args.held_out_ids, data, output, options)
        for seed in args.seeds
        for layout in args.layouts
    ]
    for encoder in encoders:
        yield encoder, [setting for setting in chosen if setting.scope == "all"]
    for encoder in encoders:
        if (encoder.layout, encoder.seed) == FIRST:
            yield encoder, chosen


def render(encoder: Encoder, test_ids: int, threads: int) -> None:
    """Write the benchmark that `encoder` is trained and tested on, as far as it is not there."""
    train_ids = encoder.identities + encoder.held_out
    spec = BenchmarkSpec(train_ids, test_ids, IMAGES_PER_CAMERA[encoder.layout], (64, 32))
    write_benchmark(encoder.layout, str(encoder.root), spec, threads)


def run_setting(encoder: Encoder, setting: Setting) -> None:
    """Train `setting` and score all its retrievals, as far as that is not done."""
    results = encoder.folder / "results"
    paths = {r.name: results / f"{slug(setting.name)}__{slug(r.name)}.json" for r in setting.retrievals}
    left = [retrieval for retrieval in setting.retrievals if not paths[retrieval.name].exists()]
    rows = trained_rows if setting.kind in ("generator", "mlp") else baseline_rows
    for retrieval, ways, diagnostics in rows(encoder, setting, left) if left else ():
        scores, queries = score(encoder, ways)
        where = encoder.layout, encoder.seed, encoder.identities
        trial = Trial(*where, setting.name, retrieval.name, scores, diagnostics)
        save_trial(paths[retrieval.name], trial, queries)
        logger.info("%s: %s, %s: %s", encoder.folder, *trial.row, trial.mAP["test"])


Rows = Iterator[tuple[Retrieval, Ways, dict[str, float]]]  # how, the features, and their diagnostics


def baseline_rows(encoder: Encoder, setting: Setting, retrievals: list[Retrieval]) -> Rows:
    """Give the row of what is not generated."""
    cfg = stage2_config(encoder, encoder.folder, setting.options)
    ways = baseline(encoder, setting.kind, cfg.MODEL.BACKBONE.PART_TOKENS)
    for retrieval in retrievals:
        yield retrieval, ways, diagnose_real(encoder) if setting.kind == "stage 1" else {}


def trained_rows(encoder: Encoder, setting: Setting, retrievals: list[Retrieval]) -> Rows:
    """Train a generator or a perceptron, and give a row for each way to retrieve with it."""
    folder = encoder.folder / "runs" / slug(setting.name)
    setup_logger()
    cfg, made = stage2_config(encoder, folder, setting.options), None
    if setting.kind == "mlp":
        generated, parameters = train_perceptron(encoder, cfg)
    else:
        model = train_generator(encoder, cfg)
        parameters = trained_parameters(model)
    for retrieval in retrievals:
        if setting.kind == "generator" and retrieval.options != made:
            cfg, made = stage2_config(encoder, folder, setting.options, retrieval.options), retrieval.options
            generated = generate(encoder, model, cfg)
        diagnostics = diagnose_generated(encoder, generated) | {"parameters": parameters}
        yield retrieval, join_generated(encoder, generated, retrieval), diagnostics


def slug(name: str) -> str:
    """Return a file name for `name`."""
    return "".join(character if character.isalnum() else "_" for character in name)


if __name__ == "__main__":
    main()
