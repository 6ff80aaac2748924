"""The one dataset class. A benchmark (folders, file names, cameras) and its protocols are data."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from fastreid.data.datasets.attributes import read_attributes
from fastreid.data.datasets.files import missing_path_error, read_protocol_file, scan_images
from fastreid.data.datasets.registry import DATASET_REGISTRY
from fastreid.structures import Sample, SampleNames
from fastreid.utils.errors import UserError


@dataclass(frozen=True)
class NameFormat:
    """The file names of a benchmark, which tell identity and camera.

    Attributes:
        pattern: matched at the start of the file name; the group ``camera`` is the camera's number, all
            other groups, joined, are the person id.
        example: a name of that pattern, for error messages.
        cameras: camera number -> (camera id, view id).
        other_cameras: the same for every number that `cameras` lacks; None: there are no others.
    """

    pattern: re.Pattern[str]
    example: str
    cameras: Mapping[int, tuple[int, int]]
    other_cameras: tuple[int, int] | None = None

    def parse(self, path: str) -> Sample:
        """Return the sample that the file name stands for.

        Raises:
            UserError: if the name does not follow the pattern, or its camera does not exist.
        """
        person, camera = self.person_and_camera(path)
        place = self.cameras.get(int(camera), self.other_cameras)
        if place is None:
            known = ", ".join(map(str, self.cameras))
            raise UserError(f"{path}: the benchmark has no camera {int(camera)}; its cameras are {known}")
        return Sample(path, int(person), *place)

    def person_and_camera(self, path: str) -> tuple[str, str]:
        """Return the person id and the camera's number as the file name has them. UserError as `parse`."""
        match = self.pattern.match(os.path.basename(path))
        if match is None:
            raise UserError(f"{path}: the file name does not follow the benchmark's pattern {self.example}")
        fields = match.groupdict()
        camera = fields.pop("camera")
        return "".join(fields.values()), camera


@dataclass(frozen=True)
class PublishedSizes:
    """Counts of the publication; None where it says nothing. `images` and `ids`: of the whole benchmark."""

    train: int | None = None
    train_ids: int | None = None
    query: int | None = None
    gallery: int | None = None
    images: int | None = None
    ids: int | None = None


@dataclass(frozen=True)
class Protocol:
    """One way to evaluate a benchmark: where query and gallery come from, and what of it counts.

    Attributes:
        suffix: appended to the benchmark's name to make the registry name.
        query, gallery: folders; unused with a `list_file`.
        list_file: protocol file that lists query and gallery.
        query_view, gallery_view: keep the images of this view only; None keeps all.
        camera_is_view: a query's matches are in another view, not only in another camera.
        published: its sizes, of query and gallery.
    """

    suffix: str = ""
    query: tuple[str, ...] = ()
    gallery: tuple[str, ...] = ()
    list_file: str = ""
    query_view: int | None = None
    gallery_view: int | None = None
    camera_is_view: bool = False
    published: PublishedSizes = PublishedSizes()


@dataclass(frozen=True)
class Benchmark:
    """A published dataset. `folder` lies in ``DATASETS.ROOT``; the other paths are relative to it.

    `names` is None where a list tells the labels (`CSVDataset`).
    """

    name: str
    folder: str
    view_names: tuple[str, ...]
    names: NameFormat | None
    train: str
    protocols: tuple[Protocol, ...] = field(repr=False)
    attributes: str = ""
    published: PublishedSizes = PublishedSizes()  # of the training set and the whole

    @property
    def camera_names(self) -> dict[int, str]:
        """The number in file names by camera id; the view's name where an id stands for several cameras."""
        if self.names is None:
            return {}
        names = {camid: str(camera) for camera, (camid, _) in self.names.cameras.items()}
        if self.names.other_cameras is not None:
            camid, view = self.names.other_cameras
            names[camid] = self.view_names[view]
        return names

    def register(self) -> None:
        """Enter every protocol in the registry, as ``name + suffix``."""
        for protocol in self.protocols:
            DATASET_REGISTRY.register(self.name + protocol.suffix, partial(ReIDDataset, self, protocol))


class ReIDDataset:
    """The images of a benchmark under one protocol, read when first asked for.

    Attributes:
        name: registry name, e.g. ``CARGO_AG``.
        root: the folder that holds the benchmark's folder; ``~`` is expanded.
        folder: the benchmark's folder.
        view_names: what the view ids stand for.
        camera_names: the same of the camera ids.
        bad_names: what becomes of a file name that cannot be read. None: it is an error, the default. A
            list: its path is added there, and the image left out.
        scans: the samples that were found in folders so far, by benchmark and folder. Protocols that are
            given the same one scan a folder once, and have its samples in common.
    """

    bad_names: list[str] | None = None

    def __init__(self, benchmark: Benchmark, protocol: Protocol, root: str, csv: str = "") -> None:
        self.benchmark = benchmark
        self.protocol = protocol
        self.name = benchmark.name + protocol.suffix
        self.root = os.path.expanduser(root)
        self.folder = os.path.join(self.root, benchmark.folder)
        self.view_names = benchmark.view_names
        self.camera_names = benchmark.camera_names
        self.scans: dict[tuple[str, str], list[Sample]] = {}

    def __repr__(self) -> str:
        return f"ReIDDataset({self.name!r}, root={self.root!r})"

    @cached_property
    def train(self) -> list[Sample]:
        """Training images, the same for every protocol of a benchmark; junk is left out.

        Raises:
            UserError: if the folder is missing or holds no such image, or a name cannot be read.
        """
        samples = self._scan((self.benchmark.train,))
        kept = [sample for sample in samples if sample.pid >= 0]
        if not kept:
            raise UserError(
                f"{self.name}: no training images in {os.path.join(self.folder, self.benchmark.train)}"
                f" ({len(samples)} files, all junk)",
                "complete the folder",
            )
        return kept

    @property
    def query(self) -> list[Sample]:
        """Query images; junk asks for nobody and is left out. Raises UserError like `train`."""
        return self._query_and_gallery[0]

    @property
    def gallery(self) -> list[Sample]:
        """Gallery images; junk stays, as a distractor. Raises UserError like `train`."""
        return self._query_and_gallery[1]

    def names_of(self, sample: Sample) -> SampleNames:
        """Return the names of one of its images, as file names have them."""
        person, _ = self.benchmark.names.person_and_camera(sample.path)
        return SampleNames(person, self.camera_names[sample.camid], self.view_names[sample.viewid])

    @cached_property
    def attributes(self) -> dict[int, dict[str, int]] | None:
        """``{pid: {attribute: 1 or 2}}``; None without attributes or (with a warning) without their file."""
        if not self.benchmark.attributes:
            return None
        return read_attributes(os.path.join(self.folder, self.benchmark.attributes))

    @cached_property
    def _query_and_gallery(self) -> tuple[list[Sample], list[Sample]]:
        protocol = self.protocol
        if protocol.list_file:
            paths = read_protocol_file(self.benchmark.name, self.folder, protocol.list_file)
            listed_query, listed_gallery = (self._parse(part) for part in paths)
        else:
            listed_query, listed_gallery = self._scan(protocol.query), self._scan(protocol.gallery)
        query = self._select(listed_query, protocol.query_view, drop_junk=True)
        gallery = self._select(listed_gallery, protocol.gallery_view, drop_junk=False)
        if not query or not gallery:
            places = (protocol.list_file,) if protocol.list_file else protocol.query + protocol.gallery
            source = " and ".join(os.path.join(self.folder, place) for place in places)
            raise UserError(
                f"{self.name}: {len(query)} usable query images (of {len(listed_query)}) and {len(gallery)}"
                f" gallery images (of {len(listed_gallery)}) in {source}; evaluation needs both",
                f"complete the folder, or leave {self.name} out of DATASETS.TESTS",
            )
        return query, gallery

    def _scan(self, folders: tuple[str, ...]) -> list[Sample]:
        samples: list[Sample] = []
        for name in folders:
            path = os.path.join(self.folder, name)
            if not os.path.isdir(path):
                raise missing_path_error(self.benchmark.name, "folder", path)
            place = self.benchmark.name, path
            if place not in self.scans:
                self.scans[place] = self._parse(scan_images(path))
            samples += self.scans[place]
        return samples

    def _parse(self, paths: Iterable[str]) -> list[Sample]:
        samples: list[Sample] = []
        for path in paths:
            try:
                samples.append(self.benchmark.names.parse(path))
            except UserError:
                if self.bad_names is None:
                    raise
                self.bad_names.append(path)
        return samples

    def _select(self, samples: list[Sample], view: int | None, drop_junk: bool) -> list[Sample]:
        kept = [
            sample
            for sample in samples
            if (view is None or sample.viewid == view) and not (drop_junk and sample.pid < 0)
        ]
        if self.protocol.camera_is_view:
            return [replace(sample, match_id=sample.viewid) for sample in kept]
        return kept


def joint_view_names(datasets: Iterable[ReIDDataset]) -> tuple[str, ...]:
    """Return the view names of joined benchmarks: those of the one with the most views.

    Its first views mean the same, or nearly, in the others.
    """
    return max((dataset.view_names for dataset in datasets), key=len, default=())
