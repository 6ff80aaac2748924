"""The figures of a comparison: metrics over seeds, differences to the first method, costs."""

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastreid.comparison.files import COST, read_json
from fastreid.comparison.plan import Training
from fastreid.config import CfgNode
from fastreid.evaluation.bootstrap import paired_bootstrap
from fastreid.evaluation.report import ScoredQueries, read_query_scores
from fastreid.utils.errors import UserError

logger = logging.getLogger(__name__)

METRICS = ("Rank-1", "mAP", "mINP")
FEWEST_SEEDS = 3  # with fewer, all of one method lie above all of the other in every third comparison or more
TOLERANCE = 1e-6  # percent points


@dataclass(frozen=True)
class Difference:
    """The mAP of a method less that of the first one, in percent points.

    Attributes:
        low, high: the 95 % interval of `mean` over the persons of the test set, for these trainings.
        separated: 0 lies outside of the interval, and all seeds of one method, at least `FEWEST_SEEDS` of
            each, lie above all of the other.
    """

    mean: float
    low: float
    high: float
    separated: bool


@dataclass(frozen=True)
class ProtocolScores:
    """A method on one protocol, percent.

    Attributes:
        values: by metric, a value for each seed.
        difference: None for the first method.
    """

    values: dict[str, list[float]]
    difference: Difference | None

    def mean(self, metric: str) -> float:
        return statistics.mean(self.values[metric])

    def deviation(self, metric: str) -> float | None:
        """Return the standard deviation over seeds; None of one seed."""
        values = self.values[metric]
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Cost:
    """The profile of a method's model on one device, see tools/profile_complexity.py.

    Attributes:
        parameters: all of them, classifiers of the training identities included.
        flops: floating point operations of an image's feature.
        images_per_second: of the whole feature, in batches of `batch_size`.
        peak_bytes: CUDA: of its tensors; CPU: of the whole process.
    """

    parameters: int
    flops: float
    images_per_second: float
    peak_bytes: int
    batch_size: int
    device: str


@dataclass(frozen=True)
class Row:
    """A method of the comparison; its seeds may be fewer than asked for, as long as some still train.

    Attributes:
        settings: what it trains with, in words.
        training_seconds: of the iterations of one training, by their median and number, and of those that it
            starts from; the median over seeds.
        cost: None where it was not measured.
    """

    name: str
    method: str
    seeds: int
    settings: dict[str, str]
    scores: dict[str, ProtocolScores]
    training_seconds: float
    cost: Cost | None


@dataclass(frozen=True)
class Comparison:
    """All rows; the first is what the others are compared with."""

    protocols: list[str]
    rows: list[Row]

    @property
    def baseline(self) -> Row:
        return self.rows[0]


@dataclass(frozen=True)
class Finished:
    """The figures that a finished training has left.

    Attributes:
        metrics: by protocol, those of its last evaluation.
        queries: by protocol, what `metrics` are means of.
    """

    training: Training
    metrics: dict[str, dict[str, float]]
    queries: dict[str, ScoredQueries]
    seconds: float

    @classmethod
    def read(cls, training: Training) -> "Finished":
        """Read the files of its folder.

        Raises:
            UserError: if one cannot be read, or the scores are not those of its last evaluation.
        """
        metrics = read_json(training.evaluations)[-1]["results"]
        queries = read_query_scores(training.folder, list(metrics))
        for protocol, scores in queries.items():
            if abs(100 * scores.ap.mean() - metrics[protocol]["mAP"]) > TOLERANCE:
                raise UserError(
                    f"{training.folder}: query_scores.npz is not of the training's last evaluation",
                    f"remove {training.evaluations}: the same command makes the evaluation again",
                )
        return cls(training, metrics, queries, _training_seconds(training.folder / "metrics.json"))


def _training_seconds(path: Path) -> float:
    """Estimate the seconds of a training's iterations by their median and number."""
    timed = [
        line for line in read_json(path) if isinstance(line, dict) and {"time", "iteration"} <= line.keys()
    ]
    if not timed:
        raise UserError(f"{path} has no times of iterations", f"remove {path.parent} to train it again")
    return statistics.median(line["time"] for line in timed) * timed[-1]["iteration"]


def summarise(trainings: Sequence[Training]) -> Comparison:
    """Read what finished trainings have left, and compare; a method without any is left out with a warning.

    Raises:
        UserError: if the first method has none, or the trainings were not scored on the same queries.
    """
    finished: dict[str, list[Finished]] = {training.contender.name: [] for training in trainings}
    for training in trainings:
        if training.finished:
            finished[training.contender.name].append(Finished.read(training))
    first, *_ = finished
    if not finished[first]:
        raise UserError(f"no training of {first} is finished yet", "run the comparison without --report-only")
    for name in [name for name, own in finished.items() if not own]:
        logger.warning("%s: no training is finished yet, left out", name)
        del finished[name]
    _check_same_queries([each for own in finished.values() for each in own])
    rows = [_row(own, finished[first], finished) for own in finished.values()]
    return Comparison(list(finished[first][0].metrics), rows)


def _check_same_queries(finished: list[Finished]) -> None:
    first = finished[0]
    for other in finished[1:]:
        same = first.queries.keys() == other.queries.keys() and all(
            np.array_equal(scores.persons, other.queries[protocol].persons)
            for protocol, scores in first.queries.items()
        )
        if not same:
            raise UserError(
                f"{other.training.folder} was scored on other queries than {first.training.folder}",
                "the test data has changed: restore it, or choose another --output",
            )


def _row(own: list[Finished], first: list[Finished], finished: dict[str, list[Finished]]) -> Row:
    contender = own[0].training.contender
    seconds, name = 0.0, contender.name
    while part := finished.get(name):
        seconds += statistics.median(each.seconds for each in part)
        name = part[0].training.contender.starts_from
    scores = {protocol: _scores(protocol, own, first) for protocol in own[0].metrics}
    settings = _settings(contender.cfg)
    return Row(contender.name, contender.method, len(own), settings, scores, seconds, _cost(own))


def _scores(protocol: str, own: list[Finished], first: list[Finished]) -> ProtocolScores:
    values = {metric: [each.metrics[protocol][metric] for each in own] for metric in METRICS}
    if own is first:
        return ProtocolScores(values, None)
    ours, theirs = ([each.queries[protocol].ap for each in part] for part in (own, first))
    gains = 100 * (np.mean(ours, axis=0) - np.mean(theirs, axis=0))
    low, high = paired_bootstrap(gains, first[0].queries[protocol].persons)
    before = [each.metrics[protocol]["mAP"] for each in first]
    apart = min(values["mAP"]) > max(before) or max(values["mAP"]) < min(before)
    enough = min(len(own), len(first)) >= FEWEST_SEEDS
    separated = apart and enough and not low <= 0 <= high
    return ProtocolScores(values, Difference(float(gains.mean()), low, high, separated))


def _settings(cfg: CfgNode) -> dict[str, str]:
    solver = cfg.SOLVER
    return {
        "input": "x".join(map(str, cfg.INPUT.SIZE_TRAIN)),
        "batch": str(solver.IMS_PER_BATCH),
        "epochs": str(solver.MAX_EPOCH),
        "optimiser": f"{solver.OPT} {solver.BASE_LR:g}",
        "schedule": solver.SCHED,
        "mirror images in tests": "averaged" if cfg.TEST.FLIP.ENABLED else "no",
    }


def _cost(finished: list[Finished]) -> Cost | None:
    path = next((p for each in finished if (p := each.training.folder / COST).exists()), None)
    if path is None:
        return None
    report = read_json(path)
    try:
        whole, batch = list(report["timing"].values())[-1], report["batch_size"]
        return Cost(
            report["parameters"]["total"]["total"],
            report["flops"]["total"] / batch,
            batch / whole["median_seconds"],
            whole["peak_bytes"],
            batch,
            report["device"],
        )
    except (LookupError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"{path} is no profile of a model", "remove it: it is made again") from error
