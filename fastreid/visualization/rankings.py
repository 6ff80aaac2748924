"""Everything that the pages show of a protocol's rank lists, from one pass over the distances."""

import sys
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fastreid.evaluation.rank import Labels
from fastreid.evaluation.roc import RowBlocks

RECALL_LEVELS = np.linspace(0, 1, 101)


class Rankings(NamedTuple):
    """Of Q queries and C cameras. Gallery items of the query's person and camera are no part of a list."""

    top_k: np.ndarray  # (Q, k) int32, gallery indices in rank order; -1 behind the last
    distances: np.ndarray  # (Q, k) float32, of the same
    next_match: np.ndarray  # (Q,) int32, gallery index of the nearest true match beyond rank k; -1: none
    next_rank: np.ndarray  # (Q,) int32, its rank, from 1
    next_distance: np.ndarray  # (Q,) float32
    precision: np.ndarray  # (101,) float64, at RECALL_LEVELS: the mean over the queries that have a match
    pair_ap: np.ndarray  # (C, C) float64, mAP of query camera x gallery camera alone; NaN without a match
    pair_queries: np.ndarray  # (C, C) int64, the queries behind it


class _Ranked(NamedTuple):
    """One query's list."""

    order: np.ndarray  # gallery indices in rank order, the own camera's matches left out
    hit_ranks: np.ndarray  # ranks of the true matches, from 1, ascending


def collect_rankings(
    row_blocks: RowBlocks, labels: Labels, q_cameras: np.ndarray, g_cameras: np.ndarray, k: int
) -> Rankings:
    """Rank lists, precision-recall curve and AP of camera pairs.

    Memory grows with Q x k and a block of distances, not with Q x G. Equal distances are ordered by
    gallery index.

    Args:
        row_blocks: ``(rows, (len(rows), G) distances)``, all queries in order.
        labels: of queries and gallery.
        q_cameras, g_cameras: (Q,) and (G,) integers from 0 to C - 1: what the pairs are made of. They may be
            finer than the camera ids of `labels`, which decide what is left out.
        k: length of the lists.
    """
    num_queries = len(labels.starts)
    num_cameras = int(max(q_cameras.max(), g_cameras.max())) + 1
    lists = Rankings(
        top_k=np.full((num_queries, k), -1, np.int32),
        distances=np.zeros((num_queries, k), np.float32),
        next_match=np.full(num_queries, -1, np.int32),
        next_rank=np.zeros(num_queries, np.int32),
        next_distance=np.zeros(num_queries, np.float32),
        precision=np.zeros(len(RECALL_LEVELS)),
        pair_ap=np.zeros((num_cameras, num_cameras)),
        pair_queries=np.zeros((num_cameras, num_cameras), np.int64),
    )
    matched = 0
    with tqdm(
        total=num_queries, unit="query", desc="rank lists", disable=not sys.stderr.isatty()
    ) as progress:
        for rows, distances in row_blocks:
            for query, row in enumerate(distances, start=rows.start):
                ranked = _rank(row, labels, query)
                _keep_nearest(lists, query, row, ranked)
                if len(ranked.hit_ranks):
                    matched += 1
                    lists.precision[:] += interpolated_precision(ranked.hit_ranks)
                    _add_camera_pairs(lists, int(q_cameras[query]), g_cameras[ranked.order], ranked.hit_ranks)
            progress.update(len(distances))
    pair_queries = np.where(lists.pair_queries, lists.pair_queries, np.nan)
    return lists._replace(precision=lists.precision / max(matched, 1), pair_ap=lists.pair_ap / pair_queries)


def interpolated_precision(hit_ranks: np.ndarray) -> np.ndarray:
    """The highest precision at each recall level or beyond (Manning et al., Introduction to Information
    Retrieval, section 8.4).

    Args:
        hit_ranks: (H,) ranks of all true matches, from 1, ascending; H >= 1.

    Returns:
        (101,) float64 at `RECALL_LEVELS`.
    """
    precision = np.arange(1, len(hit_ranks) + 1) / hit_ranks
    best_from = np.maximum.accumulate(precision[::-1])[::-1]
    needed = np.ceil(RECALL_LEVELS * len(hit_ranks) - 1e-9).astype(int)  # hits that reach the level
    return best_from[np.maximum(needed, 1) - 1]


def _rank(row: np.ndarray, labels: Labels, query: int) -> _Ranked:
    hits, junk = labels.hits_and_junk(query)
    is_hit, counts = np.zeros(len(row), bool), np.ones(len(row), bool)
    is_hit[hits], counts[junk] = True, False
    order = np.argsort(row, kind="stable")
    order = order[counts[order]]
    return _Ranked(order, np.flatnonzero(is_hit[order]) + 1)


def _keep_nearest(lists: Rankings, query: int, row: np.ndarray, ranked: _Ranked) -> None:
    k = lists.top_k.shape[1]
    nearest = ranked.order[:k]
    lists.top_k[query, : len(nearest)] = nearest
    lists.distances[query, : len(nearest)] = row[nearest]
    beyond = ranked.hit_ranks[ranked.hit_ranks > k]
    if len(beyond):
        lists.next_rank[query] = beyond[0]
        lists.next_match[query] = match = ranked.order[beyond[0] - 1]
        lists.next_distance[query] = row[match]


def _add_camera_pairs(lists: Rankings, q_camera: int, cameras: np.ndarray, hit_ranks: np.ndarray) -> None:
    """Add the query's AP among the items of each camera; `cameras`: (N,) of its list, in rank order."""
    hit_cameras = cameras[hit_ranks - 1]
    for camera in np.unique(hit_cameras):
        ranks = np.cumsum(cameras == camera)[hit_ranks[hit_cameras == camera] - 1]
        lists.pair_ap[q_camera, camera] += np.mean(np.arange(1, len(ranks) + 1) / ranks)
        lists.pair_queries[q_camera, camera] += 1
