"""Tables of pictures to extract features of: columns by name, a row for each picture."""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from fastreid.config import CfgNode
from fastreid.data.datasets import open_dataset
from fastreid.data.datasets.csv_file import SPLITS, WHOLE_NUMBER
from fastreid.data.datasets.files import list_images
from fastreid.data.formats import SUFFIXES_IN_WORDS
from fastreid.structures import Sample, SampleNames
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write

Columns: TypeAlias = dict[str, list[Any]]  # "path" str always; "pid", "camid", "viewid" int; others str


def list_folder(folder: str) -> Columns:
    """Return all image files below `folder`, sorted: ``{"path": […]}``; others are counted in a warning.

    Raises:
        UserError: if it cannot be read or holds no image.
    """
    paths = list_images(folder)
    if not paths:
        raise UserError(f"no {SUFFIXES_IN_WORDS} files in {folder} or the folders below it")
    return {"path": paths}


def list_file(path: str) -> Columns:
    """Return the pictures that a file lists; relative paths start from the current folder.

    Args:
        path: of a text file, one path a line, blank lines left out; or of a CSV file whose first line has the
            column ``path``, and perhaps ``camid``, ``camera``, ``viewid``, ``view`` and others.

    Raises:
        UserError: if it cannot be read or lists nothing.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise UserError(f"list of pictures {path} cannot be read: {error.strerror}") from error
    if "path" in next(csv.reader(lines[:1]), ()):
        columns = read_columns(path)
    else:
        columns = {"path": [line.strip() for line in lines if line.strip()]}
    if not columns["path"]:
        raise UserError(f"list of pictures {path} is empty: expected the path of a picture in each line")
    return columns


def list_dataset(name: str, cfg: CfgNode, split: str | None = None) -> Columns:
    """Return the images of a registered dataset, each path once, with pid, camid, viewid and split.

    The data's own names are in the columns person, camera and view.

    Args:
        name: registry name, such as ``CARGO_AG``.
        cfg: DATASETS.ROOT and DATASETS.CSV are read.
        split: train, query or gallery; None: all of them. An image of several has their names joined
            with ``+``, as ``query+gallery``.

    Raises:
        UserError: for an unknown dataset, or one whose files are not there.
    """
    dataset = open_dataset(name, cfg.DATASETS.ROOT, cfg.DATASETS.CSV)
    samples: dict[str, Sample] = {}
    splits: dict[str, list[str]] = {}
    for part in (split,) if split else SPLITS:
        for sample in getattr(dataset, part):
            samples.setdefault(sample.path, sample)
            splits.setdefault(sample.path, []).append(part)
    names = [dataset.names_of(sample) for sample in samples.values()]
    return {
        "path": list(samples),
        "pid": [sample.pid for sample in samples.values()],
        "camid": [sample.camid for sample in samples.values()],
        "viewid": [sample.viewid for sample in samples.values()],
        "split": ["+".join(parts) for parts in splits.values()],
        **{column: [getattr(own, column) for own in names] for column in SampleNames._fields},
    }


def list_pictures(places: list[str]) -> list[str]:
    """Return files and, of folders, all image files below them, in this order.

    Raises:
        UserError: for a folder that cannot be read or holds no image. Files are not looked for.
    """
    paths: list[str] = []
    for place in places:
        paths += list_folder(place)["path"] if os.path.isdir(place) else [place]
    return paths


def stream_rows(path: str | os.PathLike) -> Iterator[list[str]]:
    """Give the rows of a CSV table in turn, the first with the names of the columns; all have its length.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if not header:
                raise ValueError("it is empty")
            yield header
            for number, row in enumerate(rows, start=1):
                if len(row) != len(header):
                    raise ValueError(f"row {number} has {len(row)} fields, the first line {len(header)}")
                yield row
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"table of pictures {path} cannot be read: {error}") from error


def read_columns(path: str | os.PathLike) -> Columns:
    """Read a table from a CSV file whose first line has the names of the columns, among them ``path``.

    Raises:
        UserError: if it cannot be read.
    """
    header, *rows = stream_rows(path)
    values = zip(*rows, strict=True) if rows else [()] * len(header)
    columns: Columns = dict(zip(header, map(list, values), strict=True))
    for name in sorted({"pid", "camid", "viewid"} & set(columns)):
        columns[name] = _whole_numbers(columns[name], f"table of pictures {path}, column {name}")
    return columns


def _whole_numbers(values: list[str], place: str) -> list[int]:
    for row, value in enumerate(values, start=1):
        if not WHOLE_NUMBER.fullmatch(value):
            fix = "give whole numbers of at most 18 digits; names have the columns person, camera and view"
            raise UserError(f"{place}, picture {row}: {value!r} is no whole number", fix)
    return list(map(int, values))


def write_columns(path: str | os.PathLike, columns: Columns) -> None:
    """Write a table as CSV, atomically."""
    with atomic_write(path) as file:
        file.write(csv_text(columns))


def csv_text(columns: Columns) -> bytes:
    """Return a table as the content of a CSV file."""
    text = _csv(columns, csv.QUOTE_MINIMAL)
    if "\r" in text:  # which is left bare, and would be read as the end of a line
        text = _csv(columns, csv.QUOTE_ALL)
    # file names need not be valid text
    return text.encode("utf-8", "surrogateescape")


def _csv(columns: Columns, quoting: int) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=quoting)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()
