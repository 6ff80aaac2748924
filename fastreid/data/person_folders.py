"""Folders of person crops, one for each identity, as the CSV file that `CSVDataset` reads."""

import csv
import io
import logging
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fastreid.data.datasets.csv_file import COLUMNS, natural_order
from fastreid.data.datasets.files import list_images
from fastreid.data.formats import SUFFIXES_IN_WORDS
from fastreid.utils.errors import UserError, nearest_name

logger = logging.getLogger(__name__)

LABELS = ("pid", "camera", "view")
UNUSED_LEVEL = "-"


class Crop(NamedTuple):
    """An image and what its folders and its name say of it."""

    path: str
    pid: str
    camera: str
    view: str


class Crops:
    """Reads labels from the folders above an image and from its file name.

    Args:
        levels: what each folder level between the top folder and the image is: pid, camera, view, or
            ``-`` for a level that says nothing.
        names: a regular expression with named groups pid, camera or view, searched for in file names.

    Raises:
        UserError: if pid or view comes from nowhere, or a label from two places. Without a camera each
            view counts as one.
    """

    def __init__(self, levels: Sequence[str], names: str = "") -> None:
        try:
            self.pattern = re.compile(names)
        except re.error as error:
            raise UserError(f"--names {names!r} is no regular expression: {error}") from error
        self.levels = list(levels)
        sources = [level for level in levels if level != UNUSED_LEVEL] + list(self.pattern.groupindex)
        for label in sources:
            if label not in LABELS:
                near = nearest_name(label, [*LABELS])
                raise UserError(f"--levels and --names: {label!r} is none of {', '.join(LABELS)}.{near}")
            if sources.count(label) > 1:
                raise UserError(f"--levels and --names both tell the {label}", "leave one out")
        for label in ("pid", "view"):
            if label not in sources:
                raise UserError(
                    f"nothing tells the {label} of an image",
                    f"name it in --levels, such as pid/view for"
                    f" FOLDER/PID/VIEW/*.jpg, or in --names, such as '_(?P<{label}>[a-z0-9]+)_'",
                )

    def scan(self, folder: str) -> list[Crop]:
        """All images below `folder`, sorted by path; other files are counted in a warning.

        Raises:
            UserError: if there are none, or one does not tell its labels; it names the image.
        """
        if not os.path.isdir(folder):
            raise UserError(f"folder not found: {folder}", "name the one that holds the person crops")
        crops = [self._read(path, folder) for path in list_images(folder)]
        if not crops:
            raise UserError(f"no images in {folder}", f"name a folder of person crops ({SUFFIXES_IN_WORDS})")
        return crops

    def _read(self, path: str, folder: str) -> Crop:
        *folders, name = os.path.relpath(path, folder).split(os.sep)
        if len(folders) != len(self.levels):
            raise UserError(
                f"{path} lies {len(folders)} folders below {folder}, but --levels {'/'.join(self.levels)}"
                f" names {len(self.levels)}",
                f"name every level, '{UNUSED_LEVEL}' for one that says nothing",
            )
        match = self.pattern.search(name)
        if match is None:
            raise UserError(f"{path}: the file name does not match --names {self.pattern.pattern!r}")
        labels = dict(zip(self.levels, folders, strict=True)) | match.groupdict()
        labels.setdefault("camera", labels["view"])
        for label in LABELS:
            if not (labels[label] or "").strip():
                raise UserError(f"{path}: the {label} is empty, by --names {self.pattern.pattern!r}")
        return Crop(path, *(labels[label].strip() for label in LABELS))


class Labelled(NamedTuple):
    """A row of the CSV file; the path is still that of the image."""

    path: str
    pid: str
    camid: str
    view: str
    split: str


def name_cameras(crops: Sequence[Crop]) -> dict[tuple[str, str], str]:
    """Return the name of the camera at each (view, camera), which are in their order.

    Cameras of two views are different ones; if any share a name, all have the view's before their own.
    """
    places = sorted({(c.view, c.camera) for c in crops}, key=lambda p: (p[0], natural_order(p[1])))
    names = {place: place[1] for place in places}
    if len(set(names.values())) < len(places):
        names = {place: "/".join(place) for place in places}
    return names


def split_persons(
    crops: Sequence[Crop], train_share: float, query_per_camera: int, seed: int
) -> list[Labelled]:
    """Labels and splits: a random share of the persons trains, the others are queries and gallery.

    Of a test person up to `query_per_camera` random images in each camera are queries, as long as each of
    them keeps a gallery image in another camera. The rows come in the order of the crops.

    Raises:
        UserError: for a share that leaves nobody on one side, if no query can have a match, or a view has
            no training images.
    """
    if not 0 < train_share < 1 or query_per_camera < 1:
        raise UserError(
            f"--train-share is {train_share} and --query-per-camera is {query_per_camera}; expected a share"
            " between 0 and 1, and at least 1 query"
        )
    persons, cameras = sorted({crop.pid for crop in crops}, key=natural_order), name_cameras(crops)
    views = {crop.view for crop in crops}
    if len(views) > len(persons):
        counts = len(persons), len(views)
        logger.warning("%d persons in %d views: have --levels or --names taken one for the other?", *counts)
    if len(persons) < 2:
        raise UserError(f"{len(persons)} person: training and test need different ones, so at least two")
    rng = np.random.default_rng(seed)
    shuffled = [persons[place] for place in rng.permutation(len(persons))]
    count = min(max(1, round(train_share * len(shuffled))), len(shuffled) - 1)
    training = set(shuffled[:count])
    numbers = {place: number for number, place in enumerate(cameras)}
    images: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for crop in crops:
        images[crop.pid][numbers[crop.view, crop.camera]].append(crop.path)
    query: set[str] = set()
    for pid in sorted(images.keys() - training, key=natural_order):
        query |= choose_queries(images[pid], query_per_camera, rng)
    if not query:
        raise UserError(
            f"none of the {len(shuffled) - count} test persons is seen by two cameras, so no query could have"
            " a match",
            "check --levels and --names, or lower --train-share",
        )

    def split(crop: Crop) -> str:
        if crop.pid in training:
            return "train"
        return "query" if crop.path in query else "gallery"

    rows = [Labelled(c.path, c.pid, cameras[c.view, c.camera], c.view, split(c)) for c in crops]
    _check_views(rows, count)
    return rows


def _check_views(rows: Sequence[Labelled], training_persons: int) -> None:
    unseen = {row.view for row in rows} - {row.view for row in rows if row.split == "train"}
    if unseen:
        raise UserError(
            f"view {min(unseen)!r} shows none of the {training_persons} training persons, so nothing can be"
            " learnt about it",
            "choose another --seed, raise --train-share, or leave the view out",
        )


def choose_queries(
    by_camera: Mapping[int, Sequence[str]], per_camera: int, rng: np.random.Generator
) -> set[str]:
    """Up to `per_camera` random images in each camera; each keeps an unchosen one in another camera."""
    left = {camera: rng.permutation(sorted(paths)).tolist() for camera, paths in sorted(by_camera.items())}
    asked: set[int] = set()
    chosen: set[str] = set()
    for camera, paths in left.items():
        for _ in range(min(per_camera, len(paths))):
            remaining = {other for other, rest in left.items() if len(rest) > (other == camera)}
            if not all(remaining - {one} for one in asked | {camera}):
                break
            asked.add(camera)
            chosen.add(paths.pop())
    return chosen


def csv_bytes(rows: Sequence[Labelled], folder: str) -> bytes:
    """The file's content, with paths relative to `folder`, in UTF-8.

    Raises:
        UserError: for an image whose name is no text in UTF-8.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([os.path.relpath(row.path, folder), *row[1:]])
    try:
        return text.getvalue().encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"a file name is not UTF-8 text ({error.reason})", "rename the file") from error
