"""Whose folder is it? A manifest marks the folders that the benchmark writer made, and how it made them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastreid.data.datasets.manifest import AUTHOR, MANIFEST, read_manifest
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import write_json
from fastreid.utils.logger import warn_once


def write_manifest(folder: Path, parameters: dict, images: int, complete: bool) -> None:
    """Write the manifest of `folder`, atomically."""
    value = {"author": AUTHOR, "complete": complete, "images": images, "parameters": parameters}
    write_json(folder / MANIFEST, value)


@contextmanager
def claim_folder(folder: Path, parameters: dict, images: int) -> Iterator[None]:
    """Hold `folder` for writing a benchmark with `parameters`; mark it as ours first, complete at the end.

    Raises `UserError` and touches nothing when the folder holds something else or other parameters, or
    when another process is writing into it.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file", "choose another --root")
    manifest = read_manifest(folder) if folder.exists() else None
    if manifest:
        # before there was a choice all pictures were without a view gap
        _check_parameters(folder, {"view_gap": "none"} | manifest["parameters"], parameters)
    elif folder.exists() and any(not _is_leftover(path) for path in folder.iterdir()):
        raise UserError(
            f"{folder} is not empty and was not written by this tool (no {MANIFEST})", "choose another --root"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        write_manifest(folder, parameters, images, complete=False)
        yield
        write_manifest(folder, parameters, images, complete=True)


def _is_leftover(path: Path) -> bool:
    """Tell whether an interrupted writing of the manifest left this behind."""
    return path.name.startswith(f".{MANIFEST}.") and path.name.endswith(".tmp")


def _check_parameters(folder: Path, old: dict, new: dict) -> None:
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if changed:
        what = ", ".join(f"{key} {old.get(key)} -> {new.get(key)}" for key in changed)
        raise UserError(
            f"{folder} was written with other parameters ({what})", "delete it or choose another --root"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an advisory lock on the folder itself; the system drops it with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder} is being written by another process", "wait for it to end") from error
        except OSError as error:
            problem = f"{folder} cannot be locked ({error.strerror})"
            warn_once(__name__, problem, "write it with one process at a time")
        yield
    finally:
        os.close(descriptor)
