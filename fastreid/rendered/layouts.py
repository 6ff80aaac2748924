"""The five real benchmarks as data: cameras, file names, folders and protocol files.

A layout says how one sighting (an identity, a camera, an index) is named and where it lies; `make_plan`
turns a `BenchmarkSpec` into the complete list of files before anything is rendered.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np

from fastreid.utils.errors import UserError, nearest_name

PERSON, CAMERA, IMAGE, SIGHTINGS = range(4)  # what a random stream is for
_LOWEST = {"train_ids": 1, "test_ids": 1, "images_per_camera": 2, "seed": 0}
VIEW_GAPS = ("real", "none")
_SIZE_LIMITS = (16, 1024)
_MOST_IDS = 9000  # four digits in the file names, with room for the junk images' people
_DATES = ("0211", "0214", "0305", "0318", "0402")


@dataclass(frozen=True)
class BenchmarkSpec:
    """The amount to write.

    `images_per_camera` is the number of pictures of one identity in *each camera that sees it*: both, or all
    three, of AG-ReID; two aerial and two ground cameras out of all for the others. A quarter of them (at
    least one) of every test identity and camera are queries, the rest gallery. `size` is (height, width).
    With the `view_gap` "real" each view shows other things of a person, with "none" all show all.
    Raises `UserError` for numbers that cannot make a benchmark.
    """

    train_ids: int = 100
    test_ids: int = 100
    images_per_camera: int = 4
    size: tuple[int, int] = (256, 128)
    seed: int = 1111
    view_gap: str = "real"

    def __post_init__(self) -> None:
        for name, lowest in _LOWEST.items():
            value = getattr(self, name)
            if value < lowest:
                raise UserError(f"--{name.replace('_', '-')} is {value}", f"give at least {lowest}")
        if self.view_gap not in VIEW_GAPS:
            raise UserError(f"--view-gap is {self.view_gap!r}", f"choose from {', '.join(VIEW_GAPS)}")
        if not all(_SIZE_LIMITS[0] <= side <= _SIZE_LIMITS[1] for side in self.size):
            height, width = self.size
            raise UserError(
                f"--size is {height}x{width}: height and width lie in {_SIZE_LIMITS[0]}..{_SIZE_LIMITS[1]}"
            )
        if self.train_ids + self.test_ids > _MOST_IDS:
            raise UserError(
                f"--train-ids plus --test-ids is {self.train_ids + self.test_ids}",
                f"give at most {_MOST_IDS}",
            )


class Sighting(NamedTuple):
    """One picture to be made."""

    identity: int
    label: str  # what stands for the identity in the file name
    split: str  # "train", "query" or "gallery"
    camera: int
    index: int
    night: bool
    stamp: int  # 0-999, drawn per identity and camera: frame numbers start here


class Image(NamedTuple):
    """A file to be written, `path` relative to the benchmark's folder with / separators."""

    path: str
    sighting: Sighting


@dataclass(frozen=True)
class Layout:
    """The differences between one benchmark and another."""

    name: str  # also its folder
    number: int  # keeps the random streams of the benchmarks apart
    cameras: dict[int, tuple[str, str]]  # id -> (name in the files, view)
    seen_by: dict[str, int]  # view -> how many of its cameras see an identity
    label: Callable[[int, np.random.Generator], str]
    path: Callable[[Sighting, str], str]
    protocols: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]  # file -> views of queries, of gallery
    night: bool = False  # whether some cameras see an identity at night
    junk: bool = False  # whether the training folder holds images of pid -1
    attribute_file: str | None = None
    elevations: dict[int, tuple[float, float]] = field(default_factory=dict)  # aerial camera -> degrees

    def view_of(self, camera: int) -> str:
        """The view of a camera: aerial, ground or wearable."""
        return self.cameras[camera][1]


class Plan(NamedTuple):
    """Everything that a benchmark's folder will hold, apart from the manifest and the contact sheet."""

    layout: Layout
    spec: BenchmarkSpec
    images: list[Image]
    protocol_files: dict[str, str]  # name -> text
    labels: dict[str, dict[int, str]]  # "train" / "test" -> identity -> label


def random_stream(spec: BenchmarkSpec, layout: Layout, purpose: int, *which: int) -> np.random.Generator:
    """The generator of one thing: it depends on the seed, the benchmark and the thing's numbers alone."""
    return np.random.default_rng([spec.seed, layout.number, purpose, *which])


def make_plan(name: str, spec: BenchmarkSpec) -> Plan:
    """The files of benchmark `name`. Raises `UserError` for a name that is not in `LAYOUTS`."""
    if name not in LAYOUTS:
        known = sorted(LAYOUTS)
        raise UserError(
            f"unknown benchmark {name!r}", f"choose from {', '.join(known)}.{nearest_name(name, known)}"
        )
    layout = LAYOUTS[name]
    identities = range(1, spec.train_ids + spec.test_ids + 1)
    streams = {identity: random_stream(spec, layout, SIGHTINGS, identity) for identity in identities}
    labels = {identity: layout.label(identity, streams[identity]) for identity in identities}
    sightings = [
        sighting
        for identity in identities
        for sighting in _sightings(layout, spec, identity, labels[identity], streams[identity])
    ]
    if layout.junk:
        sightings += _junk(layout, spec)
    images = [Image(layout.path(s, layout.cameras[s.camera][0]), s) for s in sightings]
    return Plan(
        layout,
        spec,
        images,
        _protocol_files(layout, images),
        {
            "train": {i: label for i, label in labels.items() if i <= spec.train_ids},
            "test": {i: label for i, label in labels.items() if i > spec.train_ids},
        },
    )


def _sightings(
    layout: Layout, spec: BenchmarkSpec, identity: int, label: str, rng: np.random.Generator
) -> Iterator[Sighting]:
    """All pictures of one identity, over a sample of the cameras of every view."""
    queries = max(1, spec.images_per_camera // 4)
    for view, count in layout.seen_by.items():
        cameras = [camera for camera in layout.cameras if layout.view_of(camera) == view]
        for camera in sorted(rng.choice(cameras, count, replace=False)):
            night = layout.night and bool(rng.random() < 0.25)
            stamp = int(rng.integers(1000))
            for index in range(spec.images_per_camera):
                split = "query" if index < queries else "gallery"
                split = "train" if identity <= spec.train_ids else split
                yield Sighting(identity, label, split, int(camera), index, night, stamp)


def _junk(layout: Layout, spec: BenchmarkSpec) -> Iterator[Sighting]:
    """Training pictures of people whom nobody annotated: one for every ten identities, at least two."""
    first = spec.train_ids + spec.test_ids + 1
    for number in range(max(2, spec.train_ids // 10)):
        rng = random_stream(spec, layout, SIGHTINGS, first + number)
        camera = int(rng.choice(list(layout.cameras)))
        yield Sighting(first + number, "-1", "train", camera, number, False, int(rng.integers(1000)))


def _protocol_files(layout: Layout, images: list[Image]) -> dict[str, str]:
    files = {}
    for name, (query_views, gallery_views) in layout.protocols.items():
        lines = [
            image.path
            for split, views in (("query", query_views), ("gallery", gallery_views))
            for image in images
            if image.sighting.split == split and layout.view_of(image.sighting.camera) in views
        ]
        files[name] = "\n".join(lines) + "\n"
    return files


def _plain_label(identity: int, rng: np.random.Generator) -> str:
    return str(identity)


def _padded_label(identity: int, rng: np.random.Generator) -> str:
    return f"{identity:04d}"


def _flight_label(identity: int, rng: np.random.Generator) -> str:
    """AG-ReID: person, date with morning or afternoon, and altitude; their digits make the pid."""
    return f"P{identity:04d}T{rng.choice(_DATES)}{rng.integers(2)}A{rng.integers(3)}"


def _cargo_path(s: Sighting, camera: str) -> str:
    return f"{s.split}/{camera}/{camera}_{'night' if s.night else 'day'}_{s.label}_{s.index}.jpg"


def _ag_name(s: Sighting, camera: str) -> str:
    return f"{s.label}{camera}F{s.stamp + 30 * s.index}.jpg"


def _ag_v1_path(s: Sighting, camera: str) -> str:
    test_folder = "query_all" if s.split == "query" else "bounding_box_test_all"
    folder = "bounding_box_train" if s.split == "train" else f"{test_folder}_{camera.lower()}"
    return f"{folder}/{_ag_name(s, camera)}"


def _ag_v2_path(s: Sighting, camera: str) -> str:
    folder = "train_all" if s.split == "train" else s.split
    return f"{folder}/{s.label}/{_ag_name(s, camera)}"


def _numbered_path(s: Sighting, camera: str) -> str:
    """LAGPeR and G2APS-ReID."""
    name = f"{s.label}_{camera}_{s.index:04d}.jpg"
    if s.split == "train":
        return f"bounding_box_train/{s.label}/{name}"
    return f"{'query' if s.split == 'query' else 'bounding_box_test'}/{name}"


_A, _G, _W = ("aerial",), ("ground",), ("wearable",)
_LAGPER_AERIAL = (3, 6, 9, 13, 16, 19, 22)
_LAYOUT_LIST = (
    Layout(
        name="CARGO",
        number=1,
        cameras={k: (f"Cam{k}", "aerial" if k <= 5 else "ground") for k in range(1, 14)},
        seen_by={"aerial": 2, "ground": 2},
        label=_plain_label,
        path=_cargo_path,
        protocols={},
        night=True,
        elevations={1: (78, 88)} | dict.fromkeys((2, 3, 4, 5), (50, 65)),
    ),
    Layout(
        name="AG_ReID_v1",
        number=2,
        cameras={0: ("C0", "aerial"), 3: ("C3", "ground")},
        seen_by={"aerial": 1, "ground": 1},
        label=_flight_label,
        path=_ag_v1_path,
        protocols={},
        attribute_file="qut_attribute_v4_88_attributes.mat",
    ),
    Layout(
        name="AG_ReID_v2",
        number=3,
        cameras={0: ("C0", "aerial"), 3: ("C3", "ground"), 2: ("C2", "wearable")},
        seen_by={"aerial": 1, "ground": 1, "wearable": 1},
        label=_flight_label,
        path=_ag_v2_path,
        protocols={
            "exp1_aerial_to_cctv.txt": (_A, _G),
            "exp2_aerial_to_wearable.txt": (_A, _W),
            "exp4_cctv_to_aerial.txt": (_G, _A),
            "exp5_wearable_to_aerial.txt": (_W, _A),
        },
        attribute_file="qut_attribute_v8.mat",
    ),
    Layout(
        name="LAGPeR",
        number=4,
        cameras={
            k: (f"c{k}", "aerial" if k in _LAGPER_AERIAL else "ground") for k in range(1, 23) if k != 10
        },
        seen_by={"aerial": 2, "ground": 2},
        label=_padded_label,
        path=_numbered_path,
        protocols={
            "exp3_A2G+.txt": (_A, _G),
            "exp4_G2A+.txt": (_G, _A),
            "exp5_G2A+G.txt": (_G, _A + _G),
        },
        junk=True,
        elevations=dict.fromkeys(_LAGPER_AERIAL, (60, 80)),
    ),
    Layout(
        name="G2APS-ReID",
        number=5,
        cameras={
            0: ("c0v1", "aerial"), 1: ("c0v2", "aerial"), 2: ("c0v3", "aerial"),
            3: ("c1v1", "ground"), 4: ("c1v2", "ground"), 5: ("c2v1", "ground"), 6: ("c2v2", "ground"),
        },
        seen_by={"aerial": 2, "ground": 2},
        label=_padded_label,
        path=_numbered_path,
        protocols={"exp3_A2G+.txt": (_A, _G), "exp4_G2A+.txt": (_G, _A)},
        junk=True,
    ),
)  # fmt: skip
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _LAYOUT_LIST}


def parameters_of(plan: Plan) -> dict[str, object]:
    """Return all that decides the bytes of a benchmark, as JSON values."""
    return {"benchmark": plan.layout.name, **asdict(plan.spec), "size": list(plan.spec.size)}
