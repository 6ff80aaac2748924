"""Your own data as a dataset: the images that the CSV file of ``DATASETS.CSV`` lists."""

import os
from functools import cached_property

from fastreid.data.datasets.base import Benchmark, Protocol, ReIDDataset
from fastreid.data.datasets.csv_file import Row, Table, read_table
from fastreid.data.datasets.registry import CSV_DATASET, DATASET_REGISTRY
from fastreid.structures import Sample, SampleNames
from fastreid.utils.errors import UserError, nearest_name


@DATASET_REGISTRY.register(CSV_DATASET)
class CSVDataset(ReIDDataset):
    """Images listed in a CSV file with the columns path, pid, camid, view, split and, if wanted, protocol.

    ``CSVDataset`` evaluates all query and gallery rows together, ``CSVDataset_NAME`` those of protocol NAME
    and those without a protocol. View ids count the views' names in alphabetical order; persons and cameras
    are numbered by `number_names`.

    Args:
        root: ``DATASETS.ROOT``; unused, paths are relative to the CSV file's folder or absolute.
        csv: ``DATASETS.CSV``.
        protocol: a name in the protocol column; empty for all rows.
        table: what the file holds, where it is not there yet.

    Raises:
        UserError: for a file that is not good (see `read_table`), or has no such protocol.
    """

    def __init__(self, root: str = "", csv: str = "", protocol: str = "", table: Table | None = None) -> None:
        if not csv:
            raise UserError("DATASETS.CSV is empty", f"name in it the CSV file that {CSV_DATASET} reads")
        self.table = table or read_table(os.path.expanduser(csv))
        known = self.table.protocols
        if protocol and protocol not in known:
            near = nearest_name(protocol, [*known])
            raise UserError(
                f"{CSV_DATASET}_{protocol}: {csv} has no protocol {protocol!r}.{near}"
                f" Its protocols: {', '.join(known) or 'none'}"
            )
        folder = os.path.dirname(self.table.source)
        views = self.table.view_names
        benchmark = Benchmark(CSV_DATASET, folder, views, names=None, train="", protocols=())
        super().__init__(benchmark, Protocol(f"_{protocol}" if protocol else ""), root="")
        self.camera_names = {number: name for name, number in self.table.cameras.items()}
        self._only = protocol

    def __repr__(self) -> str:
        return f"CSVDataset({self.name!r}, csv={self.table.source!r})"

    @cached_property
    def train(self) -> list[Sample]:
        """The training rows.

        Raises:
            UserError: if there are none, or none of a view.
        """
        rows = [row for row in self.table.rows if row.split == "train"]
        source = self.table.source
        if not rows:
            raise UserError(f"{source}: no row has split train", "add training images")
        absent = set(self.view_names) - {row.view for row in rows}
        for row in self.table.rows:
            if row.view in absent:
                raise UserError(
                    f"{source}, line {row.line}: view {row.view!r} has no training images, so nothing can be"
                    " learnt about it",
                    "add some, or leave the view out",
                )
        return [self._sample(row) for row in rows]

    @cached_property
    def _query_and_gallery(self) -> tuple[list[Sample], list[Sample]]:
        query, gallery = self._part("query"), self._part("gallery")
        if not query or not gallery:
            rows = f"rows of protocol {self._only}" if self._only else "rows"
            raise UserError(
                f"{self.table.source}: {len(query)} query and {len(gallery)} gallery {rows}; evaluation needs"
                f" both",
                f"add some, or leave {self.name} out of DATASETS.TESTS",
            )
        return query, gallery

    def _part(self, split: str) -> list[Sample]:
        """The images of a split, each once however many protocols list it."""
        rows = [row for row in self.table.rows if row.split == split]
        if self._only:
            rows = [row for row in rows if row.protocol in ("", self._only)]
        return list({row.path: self._sample(row) for row in rows}.values())

    def _sample(self, row: Row) -> Sample:
        pid, camid = self.table.persons[row.pid], self.table.cameras[row.camid]
        return Sample(row.path, pid, camid, self.view_names.index(row.view))

    def names_of(self, sample: Sample) -> SampleNames:
        """Return the names of one of its images, as the file has them."""
        person = self._person_names[sample.pid]
        return SampleNames(person, self.camera_names[sample.camid], self.view_names[sample.viewid])

    @cached_property
    def _person_names(self) -> dict[int, str]:
        return {number: name for name, number in self.table.persons.items()}


def open_dataset(name: str, root: str, csv: str = "") -> ReIDDataset:
    """Open the dataset of a name in ``DATASETS.NAMES`` or ``DATASETS.TESTS``; its files are not read yet.

    Args:
        name: a registry name, or ``CSVDataset_PROTOCOL``.
        root: ``DATASETS.ROOT``.
        csv: ``DATASETS.CSV``.

    Raises:
        UserError: for an unknown name, or a CSV file that is not good.
    """
    return DATASET_REGISTRY.get(name)(root=root, csv=csv)
