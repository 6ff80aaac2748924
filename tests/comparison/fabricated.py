"""Trainings that are finished on paper: what a run leaves behind, with chosen figures."""

import json
from pathlib import Path

import numpy as np

from fastreid.comparison.files import COST
from fastreid.comparison.plan import Contender, Training
from fastreid.config import load_config
from fastreid.evaluation.evaluator import summarise_percent
from fastreid.evaluation.rank import QueryScores
from fastreid.evaluation.report import write_query_scores

PROTOCOLS = ("CARGO_A2G", "CARGO_G2A")
PERSONS = np.repeat(np.arange(30), 2)


def contender(name: str, starts_from: str = "") -> Contender:
    options = ["MODEL.META_ARCHITECTURE", "ViTBaseline", "DATASETS.TESTS", str(list(PROTOCOLS))]
    return Contender(name, f"{name}.yml", load_config("", options), tuple(options), starts_from)


def finish(training: Training, ap: dict[str, np.ndarray]) -> None:
    """Leave what a finished training leaves; `ap`: (60,) of each protocol, from 0 to 1."""
    training.folder.mkdir(parents=True)
    training.final.write_bytes(b"")
    scores = {name: QueryScores(values, values / 2, 1 + (values < 0.5)) for name, values in ap.items()}
    results = {name: summarise_percent(found, 100) for name, found in scores.items()}
    entry = {"epoch": training.contender.cfg.SOLVER.MAX_EPOCH, "mean": 50.0, "results": results}
    training.evaluations.write_text(json.dumps([{"epoch": 1, "mean": 1.0, "results": {}}, entry]))
    queries = {name: (PERSONS, found) for name, found in scores.items()}
    write_query_scores(training.folder / "query_scores.npz", queries)
    lines = [{"iteration": 10, "time": 9.0}, {"iteration": 20, "time": 0.2}, {"iteration": 30, "time": 0.3}]
    lines += [{"iteration": 40, "time": 0.4}, {"iteration": 40, "CARGO_A2G/mAP": 1.0}]
    (training.folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    timing = {"person": {"median_seconds": 1.0, "peak_bytes": 1}}
    timing["whole feature"] = {"median_seconds": 0.5, "peak_bytes": 2_500_000_000}
    report = {"batch_size": 64, "device": "CPU", "parameters": {"total": {"total": 12_340_000}}}
    report |= {"flops": {"total": 64 * 3_000_000_000}, "timing": timing}
    (training.folder / COST).write_text(json.dumps(report))


def two_methods(folder: Path, gain: float) -> list[Training]:
    """Two methods with three seeds; the second one's AP is higher by `gain` for every query."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.6, len(PERSONS))
    trainings = []
    for name, more in (("base", 0.0), ("other & co", gain)):
        for seed in range(3):
            training = Training(contender(name), seed, folder / name / f"seed{seed + 1}")
            finish(training, {p: base + more + 0.01 * seed + 0.1 * n for n, p in enumerate(PROTOCOLS)})
            trainings.append(training)
    return trainings
