"""The figures of a comparison: metrics over seeds, differences to the first method, costs."""

import json
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastreid.comparison.plan import Training
from fastreid.comparison.run import COST
from fastreid.evaluation.bootstrap import paired_bootstrap
from fastreid.evaluation.report import ScoredQueries, read_query_scores, read_results
from fastreid.utils.errors import UserError

logger = logging.getLogger(__name__)

METRICS = ("Rank-1", "mAP", "mINP")


class Difference(NamedTuple):
    """The mAP of a method less that of the first one, in percent points."""

    mean: float
    low: float
    """The 95 % interval of `mean` over the persons of the test set."""
    high: float
    beyond: bool
    """Beyond chance on both counts: 0 lies outside of the interval, and all seeds of one method lie above all
    of the other."""


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
    """The cost of a method; training and extraction on the machine of the comparison."""

    parameters: int
    flops: float
    """Floating point operations of an image's feature."""
    training_seconds: float
    """Of all iterations of one training, evaluations left out; median over seeds."""
    images_per_second: float
    peak_bytes: int


@dataclass(frozen=True)
class Row:
    """A method of the comparison; its seeds may be fewer than asked for, as long as some still train."""

    name: str
    method: str
    seeds: int
    scores: dict[str, ProtocolScores]
    cost: Cost


@dataclass(frozen=True)
class Comparison:
    """All rows; the first is what the others are compared with."""

    protocols: list[str]
    rows: list[Row]
    device: str

    @property
    def baseline(self) -> Row:
        return self.rows[0]


def summarise(trainings: Sequence[Training]) -> Comparison:
    """Read what finished trainings have left, and compare; a method without any is left out with a warning.

    Raises:
        UserError: if the first method has none, or a folder has results of other protocols.
    """
    finished: dict[str, list[Training]] = {training.contender.name: [] for training in trainings}
    for training in trainings:
        if training.finished:
            finished[training.contender.name].append(training)
    first, *_ = finished
    if not finished[first]:
        raise UserError(f"no training of {first} is finished", "run the comparison without --report-only")
    for name in [name for name, own in finished.items() if not own]:
        logger.warning("%s: no training is finished yet, left out", name)
        del finished[name]
    protocols = list(trainings[0].contender.cfg.DATASETS.TESTS)
    queries = {name: [_queries(t, protocols) for t in own] for name, own in finished.items()}
    rows = [
        Row(
            name,
            own[0].contender.method,
            len(own),
            {p: _scores(p, own, finished[first], queries[name], queries[first]) for p in protocols},
            _cost(own),
        )
        for name, own in finished.items()
    ]
    return Comparison(protocols, rows, json.loads((finished[first][0].folder / COST).read_text())["device"])


def _queries(training: Training, protocols: list[str]) -> dict[str, ScoredQueries]:
    return read_query_scores(training.folder, protocols)


def _scores(
    protocol: str,
    own: list[Training],
    first: list[Training],
    queries: list[dict[str, ScoredQueries]],
    others: list[dict[str, ScoredQueries]],
) -> ProtocolScores:
    values = _values(protocol, own)
    if own is first:
        return ProtocolScores(values, None)
    ap = [np.mean([seed[protocol].ap for seed in each], axis=0) for each in (queries, others)]
    persons = others[0][protocol].persons
    low, high = paired_bootstrap(100 * (ap[0] - ap[1]), persons)
    theirs = _values(protocol, first)["mAP"]
    apart = min(values["mAP"]) > max(theirs) or max(values["mAP"]) < min(theirs)
    mean = 100 * float((ap[0] - ap[1]).mean())
    return ProtocolScores(values, Difference(mean, low, high, apart and not low <= 0 <= high))


def _values(protocol: str, trainings: list[Training]) -> dict[str, list[float]]:
    results = [read_results(str(t.folder), METRICS)["results"][protocol] for t in trainings]
    return {metric: [result[metric] for result in results] for metric in METRICS}


def _cost(trainings: list[Training]) -> Cost:
    report = json.loads((trainings[0].folder / COST).read_text())
    whole = list(report["timing"].values())[-1]
    return Cost(
        report["parameters"]["total"]["total"],
        report["flops"]["total"] / report["batch_size"],
        statistics.median(map(_training_seconds, trainings)),
        report["batch_size"] / whole["median_seconds"],
        whole["peak_bytes"],
    )


def _training_seconds(training: Training) -> float:
    lines = [json.loads(line) for line in (training.folder / "metrics.json").read_text().splitlines()]
    timed = [line for line in lines if "time" in line]
    return statistics.median(line["time"] for line in timed) * timed[-1]["iteration"]
