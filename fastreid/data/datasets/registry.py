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
        base, protocol = _parts(name)
        return partial(super().get(base), protocol=protocol) if protocol else super().get(base)

    def check(self, name: str) -> None:
        super().check(_parts(name)[0])


def _parts(name: str) -> tuple[str, str]:
    base, _, protocol = str(name).partition("_")
    return (base, protocol) if base == CSV_DATASET else (name, "")


DATASET_REGISTRY = DatasetRegistry("dataset", "DATASETS")
