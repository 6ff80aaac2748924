"""Search in galleries of any size: codes of features on disk, and the table of their pictures."""

from fastreid.deploy.search.filters import condition
from fastreid.deploy.search.index import SearchIndex, recall
from fastreid.deploy.search.writing import add_pictures, build_index, compact_index, remove_pictures

__all__ = [
    "SearchIndex",
    "add_pictures",
    "build_index",
    "compact_index",
    "condition",
    "recall",
    "remove_pictures",
]
