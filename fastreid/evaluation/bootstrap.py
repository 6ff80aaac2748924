"""Intervals for the difference between two systems that answered the same queries."""

import numpy as np

CHUNK = 256  # resamples at a time: (CHUNK, persons) int64 are small enough for any gallery


def paired_bootstrap(
    differences: np.ndarray, persons: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of a mean difference over queries, by the bootstrap over persons.

    Persons are drawn with replacement, each with all of its queries: the queries of one person are not
    independent. (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13: percentiles.)

    Args:
        differences: (Q,) float64, one system's score of each query less the other's.
        persons: (Q,) integers, whom the queries show.

    Returns:
        The 2.5th and the 97.5th percentile of the resampled means.

    Raises:
        ValueError: without queries, or for arrays of different lengths.
    """
    if not len(differences) or len(differences) != len(persons):
        raise ValueError(f"{len(differences)} differences of {len(persons)} persons")
    _, person_of = np.unique(persons, return_inverse=True)
    sums, counts = np.bincount(person_of, differences), np.bincount(person_of)
    generator = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, CHUNK):
        drawn = generator.integers(len(sums), size=(min(CHUNK, resamples - start), len(sums)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)
