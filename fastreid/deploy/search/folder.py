"""The folder of an index: ``index.json`` names the generation of files that counts.

``generation_00000/`` holds the quantisers, the segments and the table of pictures. Building writes a new
generation, which counts from the moment that ``index.json`` names it; adding and removing happen inside of
one, as a transaction of its table. So whatever kills a process, an index is there as it was before, or as it
is after.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastreid.deploy.feature_facts import feature_choice
from fastreid.utils.documents import load_json
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import locked, write_json

FACTS, TABLE, LOCK = "index.json", "pictures.sqlite", ".lock"
OURS = ".generation"  # a file that tells a generation from a folder of somebody else
EARLIER = ("index.faiss", "index.csv")  # of an index that was kept in memory
KEYS = {"kind", "lists", "probes", "recall", "checkpoint", "config"}
BUILD = "build one with tools/search.py build"


def read_facts(folder: str | os.PathLike) -> dict[str, Any]:
    """Read the facts of the index in `folder`.

    Raises:
        UserError: without one, or for that of an earlier version.
    """
    try:
        facts = _read(Path(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"no usable index in {folder}", BUILD) from error
    if "generation" not in facts:
        raise UserError(
            f"the index in {folder} was made by an earlier version, which kept it in memory",
            f"build it again from its features: tools/search.py build --features DIR --index {folder}",
        )
    return facts


def check_index_folder(folder: str | os.PathLike) -> None:
    """Check that an index may be built in `folder`; makes nothing.

    Raises:
        UserError: if it holds files of an index's names, but no index.
    """
    folder = Path(folder)
    with suppress(OSError, ValueError):
        _read(folder)
        return
    for path in [folder / FACTS, *(folder / name for name in EARLIER), *folder.glob("generation_*")]:
        if path.exists() and not _begun(path):
            raise UserError(f"{path} is there, but no {FACTS} of an index with it", "choose another folder")


def generation_folder(folder: str | os.PathLike, facts: dict[str, Any]) -> Path:
    return Path(folder, f"generation_{facts['generation']:05d}")


@contextmanager
def change(folder: str | os.PathLike, build: bool = False) -> Iterator[None]:
    """Let this process alone change the index while the block runs.

    Args:
        build: also where there is none.

    Raises:
        UserError: if there is none, if another process changes it, or if the folder cannot be written.
    """
    if not build:
        read_facts(folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with locked(Path(folder, LOCK)) as ours:
            if not ours:
                raise UserError(
                    f"another process is changing the index in {folder}", "wait until it has ended"
                )
            yield
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write the index in {folder}: {reason}") from error


@contextmanager
def new_generation(folder: str | os.PathLike, facts: dict[str, Any]) -> Iterator[Path]:
    """Give the empty folder of a new generation, and let it count when the block is done.

    Args:
        facts: of the index; the block may complete them. ``generation`` is set here.
    """
    folder, current = Path(folder), None
    with suppress(OSError, ValueError):
        current = _read(folder).get("generation")
    _keep(folder, current)  # what a process that was killed has left goes
    facts["generation"] = 0 if current is None else current + 1
    place = generation_folder(folder, facts)
    place.mkdir()
    (place / OURS).touch()
    try:
        yield place
    except BaseException:
        _delete(place)
        raise
    write_json(folder / FACTS, facts)
    _keep(folder, facts["generation"])
    for name in EARLIER:
        (folder / name).unlink(missing_ok=True)


def _keep(folder: Path, generation: int | None) -> None:
    """Delete the other generations. A process that searches one still has its files."""
    for place in folder.glob("generation_*"):
        kept = generation is not None and place == generation_folder(folder, {"generation": generation})
        if not kept and _begun(place):
            _delete(place)


def _delete(place: Path) -> None:
    """Delete a generation, and the file that tells whose it is at the end: a kill may come between."""
    with suppress(OSError):  # a network file system keeps open files under other names
        for path in sorted(place.iterdir(), key=lambda path: path.name == OURS):
            path.unlink()
        place.rmdir()


def _begun(path: Path) -> bool:
    """Tell whether `path` is a generation, or the empty folder that one begins and ends as."""
    return (path / OURS).is_file() or (path.is_dir() and not any(path.iterdir()))


def _read(folder: Path) -> dict[str, Any]:
    facts = load_json(folder / FACTS)
    if not isinstance(facts, dict) or not facts.keys() >= KEYS or not feature_choice(facts):
        raise ValueError(f"{folder / FACTS} lacks what the facts of an index have")
    return facts
