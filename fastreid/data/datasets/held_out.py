"""Identities held out from training: what settings, epochs and weights are chosen on, never the test set."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations

from fastreid.data.datasets.base import ReIDDataset
from fastreid.structures import Sample
from fastreid.utils.errors import UserError


@dataclass(frozen=True)
class HeldOutProtocol:
    """The held-out training images of one view as queries against those of another."""

    name: str
    view_names: tuple[str, ...]
    query: list[Sample]
    gallery: list[Sample]


def hold_out(datasets: list[ReIDDataset], count: int) -> set[tuple[int, int]]:
    """Choose `count` training identities as pairs (index of the dataset, pid), evenly spaced in their order.

    They depend on nothing else: both stages, and runs with other seeds, hold out the same ones.

    Raises:
        UserError: if fewer than two identities are left to train on.
    """
    people = sorted({(n, sample.pid) for n, dataset in enumerate(datasets) for sample in dataset.train})
    if count and len(people) - count < 2:
        raise UserError(
            f"DATASETS.HELD_OUT_IDS is {count}, but {[dataset.name for dataset in datasets]} have"
            f" {len(people)} training identities, of which at least 2 must be left to train on",
            f"set it to {max(0, len(people) - 2)} or less",
        )
    return {people[(2 * k + 1) * len(people) // (2 * count)] for k in range(count)}


def held_out_protocols(
    datasets: list[ReIDDataset], people: Iterable[tuple[int, int]]
) -> list[HeldOutProtocol]:
    """Make a protocol of every ordered pair of different views of each benchmark with a true match in it.

    Raises:
        UserError: if no pair of views has one.
    """
    people, protocols = set(people), []
    for number, dataset in enumerate(datasets):
        samples = [sample for sample in dataset.train if (number, sample.pid) in people]
        for query_view, gallery_view in permutations(range(len(dataset.view_names)), 2):
            query, gallery = ([s for s in samples if s.viewid == v] for v in (query_view, gallery_view))
            if {s.pid for s in query} & {s.pid for s in gallery}:
                asked, among = dataset.view_names[query_view], dataset.view_names[gallery_view]
                name = f"{dataset.benchmark.name}_held_out_{asked}_to_{among}"
                protocols.append(HeldOutProtocol(name, dataset.view_names, query, gallery))
    if people and not protocols:
        raise UserError(
            f"DATASETS.HELD_OUT_IDS: none of the {len(people)} held-out identities is seen in two views",
            "hold out more of them, or set it to 0 to evaluate on DATASETS.TESTS while training",
        )
    return protocols
