"""The registry of datasets: benchmarks under their protocols, and a user's own CSV file."""

from functools import partial
from typing import Any

from fastreid.utils.registry import Registry

CSV_DATASET = "CSVDataset"


class DatasetRegistry(Registry):
    """Entries are called with ``root`` and ``csv``, the values of DATASETS.ROOT and DATASETS.CSV.

    ``CSVDataset_NAME`` is a name, too: the file says whether it has a protocol NAME.
    """

    def get(self, name: str) -> Any:
        base, _, protocol = name.partition("_")
        return partial(super().get(base), protocol=protocol) if base == CSV_DATASET else super().get(name)

    def check(self, name: str, key: str = "") -> None:
        super().check(CSV_DATASET if name.startswith(f"{CSV_DATASET}_") else name, key)


DATASET_REGISTRY = DatasetRegistry("dataset", "DATASETS")
