"""CMC, mAP and mINP of a distance matrix, without sorting the gallery.

Conventions (Zheng et al., ICCV 2015; mINP: Ye et al., TPAMI 2021): gallery items with the query's
person *and* camera (or what a protocol counts as one: the match id) are removed; a query without a match
left is skipped; equal distances are ordered by gallery index, as a stable sort orders them.
"""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from fastreid.evaluation import rank_numpy
from fastreid.evaluation.rank_cylib import rank_cy
from fastreid.utils.logger import warn_once


class QueryScores(NamedTuple):
    """Scores of every query, in query order; NaN (`first_hit`: 0) where no match is left."""

    ap: np.ndarray  # (Q,) float64, average precision: the mean of the precision at each hit
    inp: np.ndarray  # (Q,) float64, inverse negative penalty: hits / rank of the last hit
    first_hit: np.ndarray  # (Q,) int64, rank of the first hit, from 1

    @classmethod
    def empty(cls, num_queries: int) -> "QueryScores":
        nan = np.full(num_queries, np.nan)
        return cls(nan, nan.copy(), np.zeros(num_queries, np.int64))

    def summarise(self, max_rank: int, num_gallery: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(cmc, all_AP, all_INP)`` over the queries that have a match, as `evaluate_rank` returns them."""
        valid = self.first_hit > 0
        if not valid.any():
            raise ValueError("no query has a match of another camera in the gallery: nothing to evaluate")
        length = min(max_rank, num_gallery)
        first_hits = np.bincount(self.first_hit[valid], minlength=length + 1)
        cmc = np.cumsum(first_hits[1 : length + 1]) / valid.sum()
        return cmc, self.ap[valid], self.inp[valid]


class Labels(NamedTuple):
    """Checked labels, and the gallery grouped by person so that a query's hits need no search."""

    q_camids: np.ndarray  # (Q,) int64
    g_camids: np.ndarray  # (G,) int64
    members: np.ndarray  # (G,) int32, gallery indices, those of one person together and ascending
    starts: np.ndarray  # (Q,) int64; members[starts[i]:stops[i]] show the person of query i
    stops: np.ndarray  # (Q,) int64

    def of_queries(self, rows: slice) -> "Labels":
        """Return the labels of some of the queries against the whole gallery."""
        return self._replace(q_camids=self.q_camids[rows], starts=self.starts[rows], stops=self.stops[rows])

    def hits_and_junk(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Return gallery indices of the query's person: seen by other cameras, and by the query's own."""
        members = self.members[self.starts[query] : self.stops[query]]
        other = self.g_camids[members] != self.q_camids[query]
        return members[other], members[~other]


def evaluate_rank(
    distmat: Any,
    q_pids: Any,
    g_pids: Any,
    q_camids: Any,
    g_camids: Any,
    max_rank: int = 50,
    use_cython: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score a query x gallery distance matrix.

    Args:
        distmat: (Q, G) float32 or float64; smaller is nearer, infinities are allowed.
        q_pids, g_pids, q_camids, g_camids: (Q,) and (G,) integers of any size and sign.
        max_rank: length of the CMC curve; a smaller gallery shortens it.
        use_cython: count in the compiled kernel; without the extension, or with False, in NumPy.

    Returns:
        cmc: (min(max_rank, G),) float64, share of queries whose first hit is at rank <= r + 1.
        all_AP, all_INP: float64, one value for each query that has a match, in query order.

    Raises:
        ValueError: for NaN distances, wrong dtypes or shapes, lengths that do not belong together, or
            when no query has a match.
    """
    distmat = np.asarray(distmat)
    if distmat.dtype not in (np.float32, np.float64) or distmat.ndim != 2:
        raise ValueError(
            f"distmat must be a float32 or float64 matrix (Q, G), got {distmat.dtype} {distmat.shape}"
        )
    check_max_rank(max_rank)
    labels = check_labels(*distmat.shape, q_pids, g_pids, q_camids, g_camids)
    return rank_matrix(distmat, labels, use_cython).summarise(max_rank, distmat.shape[1])


def rank_matrix(distmat: np.ndarray, labels: Labels, use_cython: bool = True) -> QueryScores:
    """Score every query of a (Q, G) distance matrix. Raises ValueError on NaN."""
    scores = QueryScores.empty(len(distmat))
    if not distmat.size:
        return scores
    if distmat.strides[1] != distmat.itemsize:
        distmat = np.ascontiguousarray(distmat)
    ok = np.ones(len(distmat), np.uint8)
    groups = labels.members, labels.starts, labels.stops, labels.q_camids, labels.g_camids
    rank_kernels(use_cython).rank_queries(distmat, *groups, *scores, ok, torch.get_num_threads())
    if not ok.all():
        raise ValueError(f"distmat holds NaN, first in the row of query {int(np.argmin(ok))}")
    return scores


def rank_kernels(use_cython: bool = True) -> ModuleType:
    """The compiled kernels when they are wanted and built, else those in NumPy; says once if not built."""
    if use_cython and rank_cy is None:
        warn_once(
            __name__,
            "the compiled rank kernels are not built, so NumPy counts, which is slower",
            "build them: (cd fastreid/evaluation/rank_cylib && python setup.py build_ext --inplace)",
        )
    return rank_cy if use_cython and rank_cy is not None else rank_numpy


def check_max_rank(max_rank: int) -> None:
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1, got {max_rank}")


def check_labels(
    num_queries: int, num_gallery: int, q_pids: Any, g_pids: Any, q_camids: Any, g_camids: Any
) -> Labels:
    """Labels as int64 arrays, grouped. Raises ValueError for a wrong length, shape or dtype."""

    def checked(name: str, values: Any, length: int) -> np.ndarray:
        array = np.asarray(values)
        if array.shape != (length,) or (length and array.dtype.kind not in "iu"):
            raise ValueError(f"{name} must be {length} integers, got {array.dtype} of shape {array.shape}")
        return np.ascontiguousarray(array, np.int64)

    q_pids, g_pids = checked("q_pids", q_pids, num_queries), checked("g_pids", g_pids, num_gallery)
    q_camids = checked("q_camids", q_camids, num_queries)
    g_camids = checked("g_camids", g_camids, num_gallery)
    members = np.argsort(g_pids, kind="stable").astype(np.int32)
    grouped = g_pids[members]
    starts, stops = np.searchsorted(grouped, q_pids, "left"), np.searchsorted(grouped, q_pids, "right")
    return Labels(q_camids, g_camids, members, starts.astype(np.int64), stops.astype(np.int64))
