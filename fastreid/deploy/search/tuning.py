"""Choose how many lists a search reads, by the neighbours of indexed pictures."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastreid.deploy.feature_files import FeatureSet
from fastreid.deploy.search.codec import normalised
from fastreid.deploy.search.exact import nearest, others, recall

if TYPE_CHECKING:
    from fastreid.deploy.search.index import SearchIndex

QUERIES = 200
K = 10
SHARE = 0.99  # of what reading all lists would find


def tune(
    index: "SearchIndex", features: FeatureSet, rows: np.ndarray, generator: np.random.Generator
) -> dict[str, Any]:
    """Measure the facts ``probes`` and ``recall`` of a new index with `rows` of `features`.

    Probes: the smallest power of two that finds 99 % of the ten neighbours that reading all lists finds, for
    200 indexed pictures drawn at random, themselves not counted. Recall: its share of the ten exact
    neighbours.
    """
    items = draw(generator, np.arange(len(rows)), QUERIES)
    queries, k = take(features, rows[items]), min(K, len(rows) - 1)
    everything = others(index.find(queries, k + 1, exact=True)[1], items)
    probes = 1
    while True:
        found = others(index.find(queries, k + 1, probes)[1], items)
        if recall(found, everything) >= SHARE or probes == index.codec.lists:
            break
        probes = min(2 * probes, index.codec.lists)
    if not index.codec.lossless:
        everything = others(nearest(queries, k + 1, _numbered(features, rows))[1], items)
    return {"probes": probes, "recall": recall(found, everything)}


def draw(generator: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """Draw at most `count` of `rows`, rising."""
    return np.sort(generator.choice(rows, min(count, len(rows)), replace=False))


def take(features: FeatureSet, rows: np.ndarray) -> np.ndarray:
    """Return normalised features of `rows`, which rise."""
    taken = np.empty((len(rows), features.facts["width"]), np.float32)
    for own, part in features.shards():
        start, stop = np.searchsorted(rows, (own.start, own.stop))
        if stop > start:
            taken[start:stop] = normalised(part[rows[start:stop] - own.start])
    return taken


def _numbered(features: FeatureSet, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give ``(numbers in the index, normalised features)`` of `rows`, shard by shard."""
    for own, part in features.shards():
        start, stop = np.searchsorted(rows, (own.start, own.stop))
        yield np.arange(start, stop), normalised(part[rows[start:stop] - own.start])
