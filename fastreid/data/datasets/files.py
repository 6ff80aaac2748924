"""The content of a benchmark's folder: image files, and protocol files that list them."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from fastreid.data.formats import is_image_name
from fastreid.utils.errors import UserError
from fastreid.utils.logger import warn_once


def missing_path_error(benchmark: str, kind: str, path: str) -> UserError:
    """Make the error for a `kind` ("folder", "protocol file") of a benchmark that is not there."""
    return UserError(
        f"{benchmark}: {kind} not found: {path}",
        "set DATASETS.ROOT, or the environment variable FASTREID_DATASETS, to the folder that holds the"
        " benchmark's folder",
    )


def scan_images(folder: str) -> list[str]:
    """List the image files at any depth below `folder`, sorted; what has another name is left out.

    Raises:
        UserError: if a folder cannot be read.
    """
    return _scan(folder)[0]


def list_images(folder: str) -> list[str]:
    """List as `scan_images`, and count in one warning the files that are left out, unless they are hidden.

    Raises:
        UserError: if a folder cannot be read.
    """
    images, others = _scan(folder)
    if others:
        kinds = Counter(os.path.splitext(path)[1].lower() or "without a suffix" for path in others)
        named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
        more = ", …" if len(kinds) > 5 else ""
        first = os.path.relpath(others[0], folder)
        problem = f"{folder}: {len(others)} files are no pictures by their names and are left out"
        warn_once(__name__, f"{problem}: {named}{more}, such as {first}")
    return images


def _scan(folder: str) -> tuple[list[str], list[str]]:
    """Return the image files at any depth below `folder` and the others, both sorted; none is hidden."""
    images: list[str] = []
    others: list[str] = []
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        pending.append(entry.path)
                    else:
                        (images if is_image_name(entry.name) else others).append(entry.path)
        except OSError as error:
            raise UserError(f"cannot read folder {current}: {error.strerror}") from error
    return sorted(images), sorted(others)


def parse_protocol(text: str, source: str) -> tuple[list[str], list[str]]:
    """Split the text of a protocol file into query and gallery paths, in the file's order.

    A line is one path relative to the benchmark's folder, with ``/`` or ``\\`` between its components;
    it is a query if its first component starts with ``query``. Blank lines and surrounding white space
    mean nothing. A path that is listed again is left out, with a warning.

    Returns:
        Query paths and gallery paths, with ``/``.

    Raises:
        UserError: for a line that is no such path; it names `source` and the line number.
    """
    query: list[str] = []
    gallery: list[str] = []
    seen: set[str] = set()
    repeated = 0
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line:
            continue
        path = PurePosixPath(line.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or len(path.parts) < 2 or not is_image_name(path.name):
            raise UserError(
                f"{source}, line {number}: {line!r} is not the path of an image relative to the"
                f" benchmark's folder, such as query/0001_c3.jpg"
            )
        if str(path) in seen:
            repeated += 1
            continue
        seen.add(str(path))
        (query if path.parts[0].startswith("query") else gallery).append(str(path))
    if repeated:
        warn_once(__name__, f"{source} lists {repeated} images more than once; each counts once")
    return query, gallery


def read_protocol_file(benchmark: str, folder: str, name: str) -> tuple[list[str], list[str]]:
    """Read the full paths of query and gallery images from protocol file `name` in `folder`.

    Raises:
        UserError: if the file is missing, is not text, has a malformed line, or names missing images.
    """
    source = os.path.join(folder, name)
    try:
        with open(source, encoding="utf-8-sig") as file:
            text = file.read()
    except FileNotFoundError:
        raise missing_path_error(benchmark, "protocol file", source) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read protocol file {source}: {error}") from error
    query, gallery = (
        [os.path.join(folder, path) for path in paths] for paths in parse_protocol(text, source)
    )
    _check_present(query + gallery, source)
    return query, gallery


def missing_paths(
    paths: Iterable[str], counts: Callable[[os.DirEntry], bool] = lambda entry: True
) -> set[str]:
    """Return those of `paths` that do not exist, or do not count. Opens none, and lists each folder once.

    Args:
        counts: whether what is there is good enough.

    Raises:
        UserError: for a folder that may not be read.
    """
    by_folder: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, name = os.path.split(path)
        by_folder[folder].add(name)
    missing: set[str] = set()
    for folder, names in by_folder.items():
        try:
            with os.scandir(folder or ".") as entries:
                present = {entry.name for entry in entries if counts(entry)}
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no name of a file
            present = set()
        except OSError as error:
            raise UserError(f"cannot read folder {folder}: {error.strerror}") from error
        missing.update(os.path.join(folder, name) for name in names - present)
    return missing


def _check_present(paths: list[str], source: str) -> None:
    """Raise a UserError with numbers if files are missing."""
    missing = missing_paths(paths)
    if missing:
        raise UserError(
            f"{source} names {len(paths)} images, of which {len(missing)} are missing, first {min(missing)}",
            "complete the folder, or set DATASETS.ROOT to a complete one",
        )
