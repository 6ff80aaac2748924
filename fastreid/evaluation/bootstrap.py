"""Intervals for means over queries, and for differences between two systems that answered the same ones."""

import numpy as np

CHUNK = 256  # resamples at a time: (CHUNK, persons) int64 are small enough for any gallery


def bootstrap_intervals(
    scores: np.ndarray, persons: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> np.ndarray:
    """Return the 95 % intervals of means over queries, by the bootstrap over persons.

    Persons are drawn with replacement, each with all of its queries: the queries of one person are not
    independent. (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13: percentiles.)
    All means are taken of the same draws.

    Args:
        scores: (Q, M) float64, M scores of each query.
        persons: (Q,) integers, whom the queries show.

    Returns:
        (M, 2) float64: the 2.5th and the 97.5th percentile of the resampled means.

    Raises:
        ValueError: without queries, or for arrays of different lengths.
    """
    if not len(scores) or len(scores) != len(persons):
        raise ValueError(f"{len(scores)} scores of {len(persons)} persons")
    names, person_of, counts = np.unique(persons, return_inverse=True, return_counts=True)
    sums = np.zeros((len(names), scores.shape[1]))
    np.add.at(sums, person_of, scores)
    generator = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = generator.integers(len(names), size=(size, len(names)))
        cells = drawn + len(names) * np.arange(size)[:, None]
        times = np.bincount(cells.ravel(), minlength=size * len(names)).reshape(size, -1)
        means.append((times @ sums) / (times @ counts)[:, None])
    return np.percentile(np.concatenate(means), [2.5, 97.5], axis=0).T


def paired_bootstrap(
    differences: np.ndarray, persons: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of a mean difference over queries; see :func:`bootstrap_intervals`.

    Args:
        differences: (Q,) float64, one system's score of each query less the other's.
        persons: (Q,) integers, whom the queries show.

    Raises:
        ValueError: without queries, or for arrays of different lengths.
    """
    low, high = bootstrap_intervals(differences[:, None], persons, resamples, seed)[0]
    return float(low), float(high)
