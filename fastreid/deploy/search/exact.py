"""Exact search through features that need not fit into memory: the truth that other search is measured by."""

from collections.abc import Iterable

import numpy as np

from fastreid.deploy.search.codec import import_faiss


def nearest(
    queries: np.ndarray, k: int, parts: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k features with the largest inner products.

    Args:
        queries: (Q, D) float32.
        parts: ``(numbers (n,) int64, features (n, D) float32)`` in turn.

    Returns:
        (Q, k) float32 products, falling, and (Q, k) int64 numbers; -inf and -1 behind the last.
    """
    faiss = import_faiss()
    scores = np.full((len(queries), k), -np.inf, np.float32)
    numbers = np.full((len(queries), k), -1, np.int64)
    for own, features in parts:
        if len(own):
            found, places = faiss.knn(
                queries, np.ascontiguousarray(features), min(k, len(own)), metric=faiss.METRIC_INNER_PRODUCT
            )
            scores, numbers = largest(
                np.concatenate([scores, found], axis=1), np.concatenate([numbers, own[places]], axis=1), k
            )
    return scores, numbers


def largest(scores: np.ndarray, numbers: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k largest scores of each row, falling, and the numbers that they belong to."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(numbers, order, axis=1)


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the share of the numbers of `exact` that `found` has in the same row; -1 is none."""
    hits = [len(np.intersect1d(row, true[true >= 0])) for row, true in zip(found, exact, strict=True)]
    return sum(hits) / max(1, int((exact >= 0).sum()))


def others(found: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(Q, k + 1) -> (Q, k): without the query's own item or, where that was not found, the last one."""
    keep = found != items[:, None]
    keep[keep.all(axis=1), -1] = False
    return found[keep].reshape(len(found), -1)
