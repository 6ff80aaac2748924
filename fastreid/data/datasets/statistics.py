"""Counts of a split's images, identities, views and cameras, and the table of them that a run logs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tabulate import tabulate

from fastreid.data.datasets.base import ReIDDataset
from fastreid.structures import Sample


class SplitCounts(NamedTuple):
    """Counts of a list of samples; junk counts as images, not as an identity."""

    images: int
    ids: int
    views: Counter[int]
    """View id -> images."""
    cameras: Counter[int]
    """Camera id -> images."""


def count_samples(samples: Sequence[Sample]) -> SplitCounts:
    return SplitCounts(
        len(samples),
        len({sample.pid for sample in samples if sample.pid >= 0}),
        Counter(sample.viewid for sample in samples),
        Counter(sample.camid for sample in samples),
    )


def describe(datasets: Iterable[ReIDDataset], splits: Sequence[str] = ("train", "query", "gallery")) -> str:
    """Make a table of images, identities and cameras of the named splits; reads only those splits."""
    rows = []
    for dataset in datasets:
        for split in splits:
            counts = count_samples(getattr(dataset, split))
            views = ", ".join(f"{name} {counts.views[view]}" for view, name in enumerate(dataset.view_names))
            rows.append([dataset.name, split, counts.images, counts.ids, len(counts.cameras), views])
    return tabulate(rows, ["dataset", "split", "images", "ids", "cameras", "images per view"])
