"""A CSV file that lists images: one a row, with its labels. Every mistake is named by file and line."""

import csv
import io
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from fastreid.data.datasets.files import missing_paths
from fastreid.utils.errors import UserError, nearest_name
from fastreid.utils.logger import warn_once

COLUMNS = ("path", "pid", "camid", "view", "split")
OPTIONAL_COLUMN = "protocol"
SPLITS = ("train", "query", "gallery")
NEGATIVE = re.compile(r"-(?!0+\Z)[0-9]{1,18}")
WHOLE_NUMBER = re.compile(rf"[0-9]{{1,18}}|{NEGATIVE.pattern}")  # fits 64 bits
LONGEST_NAME = 100  # characters: pages and file names have it
PROTOCOL_NAME = re.compile(r"[A-Za-z0-9_.+-]+")  # becomes part of file names


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it stands, and what its cells say; `protocol` is empty for all protocols."""

    line: int
    path: str
    pid: str
    camid: str
    view: str
    split: str
    protocol: str = ""


@dataclass(frozen=True)
class Table:
    """A checked file: its rows in their order, and the names of the views in alphabetical order.

    `persons` and `cameras` have the numbers of the names in the columns pid and camid.
    """

    source: str
    rows: tuple[Row, ...]
    view_names: tuple[str, ...]
    persons: dict[str, int]
    cameras: dict[str, int]

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names in the protocol column, in alphabetical order."""
        return tuple(sorted({row.protocol for row in self.rows} - {""}))


def read_table(path: str) -> Table:
    """Read and check a file; a file that has not changed since the last time is not read again.

    Raises:
        UserError: if it cannot be read as UTF-8, a row is wrong or contradicts another one, or an image
            does not exist.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(f"DATASETS.CSV: cannot read {path}: {error.strerror}", "name a CSV file") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"DATASETS.CSV: cannot read {path}: it is no file", "name a CSV file")
    return _read_unchanged(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _read_unchanged(path: str, changed: int, size: int) -> Table:
    return check_table(_read_text(path), path)


def check_table(text: str, path: str) -> Table:
    """Return the table that `text` is as the content of the file `path`, be that written or not.

    Raises:
        UserError: as :func:`read_table`.
    """
    rows = parse_rows(text, path, os.path.dirname(path))
    check_consistency(rows, path)
    missing = missing_paths(row.path for row in rows)
    for row in rows:
        if row.path in missing:
            raise UserError(
                f"{path}, line {row.line}: image not found: {row.path} ({len(missing)} of the file's images"
                " are missing)",
                "give paths relative to the CSV file's folder, or absolute ones",
            )
    views = tuple(sorted({row.view for row in rows}))
    numbers = (number_names(row.pid for row in rows), number_names(row.camid for row in rows))
    return Table(path, tuple(rows), views, *numbers)


def number_names(names: Iterable[str]) -> dict[str, int]:
    """Return the number that each of the names stands for.

    Where all are whole numbers, these; else those from 0 on in their order, see `natural_order`. Negative
    numbers, which are distractors, stay what they are.
    """
    distinct = sorted(set(names), key=natural_order)
    if all(map(WHOLE_NUMBER.fullmatch, distinct)):
        return {name: int(name) for name in distinct}
    counted = [name for name in distinct if not NEGATIVE.fullmatch(name)]
    numbers = {name: number for number, name in enumerate(counted)}
    return numbers | {name: int(name) for name in distinct if name not in numbers}


def natural_order(name: str) -> tuple[int, str]:
    """Return what sorts numbers by value, before other names."""
    return (int(name) if WHOLE_NUMBER.fullmatch(name) else 10**18, name)


def _read_text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"DATASETS.CSV: cannot read {path}: {error.strerror}", "name a CSV file") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 text ({error.reason})", "save the file as CSV in UTF-8"
        ) from error


def parse_rows(text: str, source: str, folder: str = "") -> list[Row]:
    """Read the rows of a file's text, each checked on its own; blank rows mean nothing.

    Args:
        source: the file, for messages.
        folder: what relative paths start from.

    Raises:
        UserError: naming `source` and the line for what is no such row.
    """
    records = _records(text, source)
    line, header = next(records, (1, []))
    columns = _check_header([name.strip() for name in header], f"{source}, line {line}")
    rows = []
    for line, cells in records:
        place = f"{source}, line {line}"
        if len(cells) != len(columns):
            raise UserError(
                f"{place}: {len(cells)} cells, but the header has {len(columns)} columns",
                "put quotation marks around a cell that holds a comma",
            )
        rows.append(_row(dict(zip(columns, cells, strict=True)), line, place, folder))
    if not rows:
        raise UserError(f"{source}, line {line}: the file lists no images below its header")
    return rows


def _records(text: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of each record that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{source}, line {line}: not valid CSV ({error})", "check its quotation marks"
            ) from error
        if any(cell.strip() for cell in cells):
            yield line, cells


def _check_header(columns: list[str], place: str) -> list[str]:
    known = [*COLUMNS, OPTIONAL_COLUMN]
    for name in COLUMNS:
        if name not in columns:
            found = ", ".join(map(repr, columns)) or "nothing"
            separated = len(columns) == 1 and re.search(r"[;\t|]", columns[0])
            fix = "separate the columns by commas" if separated else ""
            raise UserError(
                f"{place}: column {name!r} is missing; the first line names the columns {', '.join(COLUMNS)}"
                f" and, if wanted, {OPTIONAL_COLUMN}, but it has {found}",
                fix,
            )
    for name in known:
        if columns.count(name) > 1:
            raise UserError(f"{place}: column {name!r} is there {columns.count(name)} times", "keep one")
    unused = [name for name in columns if name not in known]
    if unused:
        near = nearest_name(unused[0], known)
        warn_once(__name__, f"{place}: columns {', '.join(map(repr, unused))} are not used.{near}")
    return columns


def _row(cells: dict[str, str], line: int, place: str, folder: str) -> Row:
    for name in COLUMNS:
        if not cells[name].strip():
            raise UserError(f"{place}: the cell of column {name!r} is empty")
    for name in ("pid", "camid", "view", OPTIONAL_COLUMN):
        if (length := len(cells.get(name, ""))) > LONGEST_NAME:
            raise UserError(
                f"{place}: {name} has {length} characters; {LONGEST_NAME} are the most", "shorten it"
            )
    pid, camid = cells["pid"].strip(), cells["camid"].strip()
    split, protocol = cells["split"].strip(), cells.get(OPTIONAL_COLUMN, "").strip()
    if split not in SPLITS:
        raise UserError(
            f"{place}: split is {split!r}; allowed: {', '.join(SPLITS)}.{nearest_name(split, [*SPLITS])}"
        )
    if NEGATIVE.fullmatch(pid) and split != "gallery":
        raise UserError(
            f"{place}: pid is {pid}; negative ones are distractors, which only the gallery may have"
        )
    if NEGATIVE.fullmatch(camid):
        raise UserError(f"{place}: camid is {camid}; cameras have names, or numbers from 0 on")
    if protocol and split == "train":
        raise UserError(
            f"{place}: a training image under protocol {protocol!r}; all protocols share the training images",
            "leave the cell empty",
        )
    if protocol and not PROTOCOL_NAME.fullmatch(protocol):
        raise UserError(f"{place}: protocol is {protocol!r}", "use letters, digits and any of _ . + -")
    path = os.path.normpath(os.path.join(folder, cells["path"].replace("\\", "/")))
    return Row(line, path, pid, camid, cells["view"].strip(), split, protocol)


def check_consistency(rows: list[Row], source: str) -> None:
    """Compare every row with the ones above it.

    Raises:
        UserError: naming both lines, for an image listed again (other than under another protocol) or with
            other labels, a person in training and test, a camera in two views, views that differ in upper and
            lower case only, and a number that is written in two ways.
    """
    _check_images(rows, source)
    _check_labels(rows, source)


def _check_images(rows: list[Row], source: str) -> None:
    first: dict[str, Row] = {}
    listed: dict[tuple[str, str], Row] = {}
    for row in rows:
        image = first.setdefault(row.path, row)
        again = listed.setdefault((row.path, row.protocol), row)
        if image is not row and not (image.protocol and row.protocol):
            again = image
        if again is not row:
            raise UserError(
                f"{source}, line {row.line}: {row.path} is listed on line {again.line} already; an image"
                " comes again only under another protocol"
            )
        if (image.pid, image.camid, image.view) != (row.pid, row.camid, row.view):
            raise UserError(
                f"{source}, line {row.line}: {row.path} has another pid, camid or view on line {image.line}"
            )


def _check_labels(rows: list[Row], source: str) -> None:
    firsts: dict[str, dict[str, Row]] = {"pid": {}, "camid": {}, "view": {}}
    for row in rows:
        place = f"{source}, line {row.line}"
        person, camera, _ = (_first_of_the_name(row, column, firsts[column], place) for column in firsts)
        if (person.split == "train") != (row.split == "train"):
            raise UserError(
                f"{place}: pid {row.pid} is in split {row.split}, but in {person.split} on line"
                f" {person.line}; training and test have different persons"
            )
        if camera.view != row.view:
            raise UserError(
                f"{place}: camid {row.camid} has view {row.view!r}, but {camera.view!r} on line"
                f" {camera.line}; a camera has one view",
                "give different cameras different ids",
            )


def _first_of_the_name(row: Row, column: str, firsts: dict[str, Row], place: str) -> Row:
    """Return the first row with this row's name in a column, which must be written alike."""
    name = getattr(row, column)
    same = name.casefold() if column == "view" else re.sub(r"^(-?)0+(?=[0-9]+$)", r"\1", name)
    first = firsts.setdefault(same, row)
    if (before := getattr(first, column)) != name:
        problem = f"{place}: {column} {name!r} is {before!r} on line {first.line}"
        raise UserError(problem, "write it in one way")
    return first
