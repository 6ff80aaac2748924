"""The files of features: `npy` shards, and `npz` ones with the columns of their rows beside the features.

A shard's header is held against what its folder says of it before a number is read, so that no file can ask
for more memory than its features have.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from zipfile import ZipFile

import numpy as np

from fastreid.utils.errors import UserError

FORMATS = ("npy", "npz")
SHARD_SIZE = 10_000  # pictures: 31 MB of 768-wide features
MEMBER = "features.npy"  # of an npz
AGAIN = "delete it and run the extraction again"


def check_shard(path: Path, shape: tuple[int, int]) -> None:
    """Check that a file is a shard of `shape` (n, D), float32 and of full length; reads its header alone.

    Raises:
        UserError: if it is not.
    """
    with _features_in(path, shape):
        pass


def read_shard(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return the features of a shard, (n, D) float32; those of an ``npy`` stay on disk until they are read.

    Raises:
        UserError: as `check_shard`.
    """
    with _features_in(path, shape) as file:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r")
        return np.lib.format.read_array(file, allow_pickle=False)


@contextmanager
def _features_in(path: Path, shape: tuple[int, int]) -> Iterator[IO[bytes]]:
    """Give the checked array of a shard as a stream from its beginning."""
    try:
        with open(path, "rb") as file:
            if path.suffix == ".npy":
                _check_array(path, file, os.fstat(file.fileno()).st_size, shape)
                yield file
                return
            with ZipFile(file) as members:
                size = members.getinfo(MEMBER).file_size
                with members.open(MEMBER) as member:
                    _check_array(path, member, size, shape)
                with members.open(MEMBER) as member:
                    yield member
    except UserError:
        raise
    except Exception as error:  # of a file that is none, NumPy and zipfile raise what they come upon
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason})", AGAIN) from error


def _check_array(path: Path, file: IO[bytes], size: int, shape: tuple[int, int]) -> None:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"a header of version {version}")
    found, _, dtype = np.lib.format.read_array_header_1_0(file)
    if found != shape:
        raise UserError(f"{path} has shape {found}, expected {shape[0]} x {shape[1]}", AGAIN)
    if dtype != np.float32:
        raise UserError(f"{path} holds {dtype}, expected float32", AGAIN)
    if size != file.tell() + 4 * shape[0] * shape[1]:
        raise UserError(f"{path} is cut or longer than its features", AGAIN)
