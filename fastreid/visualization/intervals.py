"""The results of a report with their 95 % intervals over the queries."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastreid.data import ReIDDataset
from fastreid.evaluation.bootstrap import bootstrap_intervals
from fastreid.evaluation.rank import QueryScores
from fastreid.visualization.run_summary import RunSummary

RANKS = (1, 5, 10)
METRICS = (*(f"Rank-{rank}" for rank in RANKS), "mAP", "mINP")
RESAMPLES = 2000


class Estimate(NamedTuple):
    """A mean over queries, in percent, or a difference of two, and its interval."""

    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Tell whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


class ProtocolResults(NamedTuple):
    """The estimates of one protocol, by metric."""

    runs: list[dict[str, Estimate]]
    difference: dict[str, Estimate] | None  # of two runs, the first less the second


def protocol_results(dataset: ReIDDataset, runs: Sequence[RunSummary]) -> ProtocolResults:
    """Bootstrap the metrics of one or two runs, and their differences, over the same draws of persons."""
    persons = np.array([sample.pid for sample in dataset.query])
    scores = [_per_query(run.protocols[dataset.name].scores) for run in runs]
    if len(scores) == 2:
        scores.append(scores[0] - scores[1])
    valid = ~np.isnan(scores[0][:, 0])
    intervals = bootstrap_intervals(np.hstack(scores)[valid], persons[valid], RESAMPLES)
    means = np.hstack(scores)[valid].mean(0)
    estimates = [Estimate(*numbers) for numbers in np.column_stack([means, intervals]).tolist()]
    rows = [
        dict(zip(METRICS, estimates[start : start + len(METRICS)], strict=True))
        for start in range(0, len(estimates), len(METRICS))
    ]
    return ProtocolResults(rows[: len(runs)], rows[2] if len(runs) == 2 else None)


def _per_query(scores: QueryScores) -> np.ndarray:
    """(Q, 5) float64 in percent, by METRICS; NaN for a query without a match."""
    matched = scores.first_hit > 0
    hits = [np.where(matched, scores.first_hit <= rank, np.nan) for rank in RANKS]
    return 100 * np.stack([*hits, scores.ap, scores.inp], axis=1)
