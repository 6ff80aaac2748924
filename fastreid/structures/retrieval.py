"""The tasks of an evaluation, and their metrics."""

from typing import Protocol, TypeAlias

from fastreid.structures.sample import Sample

Metrics: TypeAlias = dict[str, float]  # Rank-1, Rank-5, Rank-10, mAP, mINP, mean, …, in percent
Results: TypeAlias = dict[str, Metrics]  # by protocol


class RetrievalTask(Protocol):
    """Queries and the gallery to search: a dataset under a protocol, or held-out people."""

    name: str
    view_names: tuple[str, ...]

    @property
    def query(self) -> list[Sample]: ...

    @property
    def gallery(self) -> list[Sample]: ...
