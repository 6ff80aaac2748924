"""The table of split sizes that a run logs."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from fastreid.data.datasets.base import ReIDDataset, Sample


def describe(datasets: Iterable[ReIDDataset], splits: Sequence[str] = ("train", "query", "gallery")) -> str:
    """A table of images, identities and cameras of the named splits; reads only those splits."""
    rows = [
        [dataset.name, split, *_counts(getattr(dataset, split), dataset.view_names)]
        for dataset in datasets
        for split in splits
    ]
    return tabulate(rows, ["dataset", "split", "images", "ids", "cameras", "images per view"])


def _counts(samples: list[Sample], view_names: tuple[str, ...]) -> list[int | str]:
    views = Counter(sample.viewid for sample in samples)
    return [
        len(samples),
        len({sample.pid for sample in samples if sample.pid >= 0}),
        len({sample.camid for sample in samples}),
        ", ".join(f"{name} {views[view]}" for view, name in enumerate(view_names)),
    ]
