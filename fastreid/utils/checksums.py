"""Checksums of checkpoints: a bit that a disk, a memory or a copy has changed is found before it is used.

They are made against accidents; somebody who means to change a file can.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK = 4096  # bytes, what disks lose at a time
CHUNK = 1 << 20


def digest(value: Any) -> str:
    """Return a digest, as 64 hexadecimal digits, of all tensors in nested dicts, lists and tuples.

    It is SHA-256 over the sum of each block's 64-bit words, and so as fast as memory: a changed bit, and a
    block that is zeroed, old or in another place, shows; words that change places within a block do not.
    """
    sums = hashlib.sha256()
    for tensor in _tensors(value):
        data = tensor.detach().contiguous().flatten().view(torch.uint8)
        if data.storage_offset() % 8:
            data = data.clone()  # words begin at multiples of their size
        blocks = len(data) // BLOCK
        words = data[: blocks * BLOCK].view(torch.int64)
        for part in (words.view(blocks, BLOCK // 8).sum(1), data[blocks * BLOCK :]):
            sums.update(part.cpu().numpy().tobytes())
    return sums.hexdigest()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def check_records(path: str | os.PathLike, wanted: Callable[[str], bool]) -> None:
    """Read the records of a ZIP archive whose names are `wanted`, against their CRC-32.

    One that was written without (as 0) passes.

    Raises:
        Exception: of one kind or another, if a record or the archive is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.CRC and wanted(record.filename):
                with archive.open(record) as file:
                    while file.read(CHUNK):
                        pass
