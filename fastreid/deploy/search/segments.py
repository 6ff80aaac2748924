"""The codes of pictures on disk, grouped by list, and mapped into memory instead of read.

A segment is what one build or addition wrote: pictures with consecutive numbers from `first`. Its file
``lists_00000.bin`` has for each list the codes of its pictures, then their numbers as int64, as faiss's
`OnDiskInvertedLists` maps it; ``refinement_00000.bin`` has the refinement of each picture, by number.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastreid.deploy.search.codec import Codes, FeatureCodec, import_faiss
from fastreid.deploy.search.folder import BUILD
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write

CHUNK = 16_384  # pictures handled at once


class Segment(NamedTuple):
    number: int
    first: int
    """The number of its first picture."""
    sizes: np.ndarray
    """(lists,) int64: pictures in each list."""

    @property
    def count(self) -> int:
        return int(self.sizes.sum())

    def lists_path(self, folder: Path) -> Path:
        return folder / f"lists_{self.number:05d}.bin"

    def refinement_path(self, folder: Path) -> Path:
        return folder / f"refinement_{self.number:05d}.bin"


def write_segment(
    folder: Path, number: int, first: int, codec: FeatureCodec, parts: Iterable[Codes]
) -> Segment:
    """Write the codes of pictures, whose numbers count from `first`.

    In memory are one part and 12 bytes a picture; the codes wait on disk, without a name, for their order.
    """
    empty = Segment(number, first, np.zeros(codec.lists, np.int64))
    assigned = [np.empty(0, np.int32)]
    with tempfile.TemporaryFile(dir=folder) as spool:
        with atomic_write(empty.refinement_path(folder)) as file:
            for part in parts:
                assigned.append(part.lists.astype(np.int32))
                part.codes.tofile(spool)
                file.write(part.refinement.tobytes())
        lists = np.concatenate(assigned)
        segment = empty._replace(sizes=np.bincount(lists, minlength=codec.lists))
        if segment.count:
            spool.flush()
            codes = np.memmap(spool, np.uint8, "r", shape=(len(lists), codec.code_size))
            order = np.argsort(lists, kind="stable")
            with atomic_write(segment.lists_path(folder)) as file:
                for rows in np.split(order, np.cumsum(segment.sizes)[:-1]):
                    for start in range(0, len(rows), CHUNK):
                        file.write(codes[rows[start : start + CHUNK]].tobytes())
                    file.write((first + rows).tobytes())
    return segment


class MappedSegments:
    """The segments of an index as faiss's inverted lists and as arrays; all stay on disk until read.

    Attributes:
        invlists: for `IndexIVF.replace_invlists`; lives as long as this object.
        end: the number behind the last picture's.
    """

    def __init__(self, folder: Path, segments: Sequence[Segment], codec: FeatureCodec) -> None:
        """Map the files; OSError or ValueError if one is missing or too short."""
        self.segments, self._codec, self._folder = segments, codec, folder
        self.end = segments[-1].first + segments[-1].count
        self._firsts = np.array([segment.first for segment in segments])
        self._lists = [_mapped(segment.lists_path(folder)) for segment in segments]
        self._refinements = []
        for segment, lists in zip(segments, self._lists, strict=True):
            if len(lists) != segment.count * (codec.code_size + 8):
                raise ValueError(f"{segment.lists_path(folder)} has {len(lists)} bytes")
            if codec.refinement is not None:
                refinement = _mapped(segment.refinement_path(folder))
                self._refinements.append(refinement.reshape(segment.count, codec.refinement_size))
        self._parts = [_faiss_lists(folder, segment, codec) for segment in segments]
        self.invlists = _joined(self._parts)

    def refinements(self, numbers: np.ndarray) -> np.ndarray:
        """Return the refinement codes (n, refinement_size) of pictures."""
        codes = np.empty((len(numbers), self._codec.refinement_size), np.uint8)
        owners = np.searchsorted(self._firsts, numbers, side="right") - 1
        for owner, refinement in enumerate(self._refinements):
            own = owners == owner
            codes[own] = refinement[numbers[own] - self._firsts[owner]]
        return codes

    def read_list(self, number: int, dtype: type = np.uint8) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give ``(numbers, codes)`` of list `number` in every segment, at most 16,384 pictures at once."""
        size = self._codec.code_size
        for segment, content in zip(self.segments, self._lists, strict=True):
            count = int(segment.sizes[number])
            start = int(segment.sizes[:number].sum()) * (size + 8)
            codes = (
                content[start : start + count * size]
                .view(dtype)
                .reshape(count, size // np.dtype(dtype).itemsize)
            )
            numbers = content[start + count * size :][: count * 8].view(np.int64)
            self.check(numbers)
            for row in range(0, count, CHUNK):
                yield numbers[row : row + CHUNK], codes[row : row + CHUNK]

    def check(self, numbers: np.ndarray) -> None:
        """Check numbers of pictures that lists have.

        Raises:
            UserError: for one that there is not.
        """
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < self.end:
            raise UserError(f"the codes in {self._folder} are damaged", BUILD)

    def read_refinements(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give ``(numbers, refinement codes)`` in the order of the pictures, at most 16,384 at once."""
        for segment, codes in zip(self.segments, self._refinements, strict=False):  # there may be none
            for row in range(0, segment.count, CHUNK):
                part = codes[row : row + CHUNK]
                yield segment.first + np.arange(row, row + len(part)), part


def _mapped(path: Path) -> np.ndarray:
    return np.memmap(path, np.uint8, "r")


def _faiss_lists(folder: Path, segment: Segment, codec: FeatureCodec) -> Any:
    faiss = import_faiss()
    path = str(segment.lists_path(folder))
    lists = faiss.OnDiskInvertedLists(codec.lists, codec.code_size, path)
    lists.read_only = True
    sizes = segment.sizes.astype(np.uint64)
    lists.set_all_lists_sizes(faiss.swig_ptr(sizes))
    lists.totsize = segment.count * (codec.code_size + 8)
    lists.do_mmap()
    return lists


def _joined(parts: list[Any]) -> Any:
    """Return one inverted file whose lists are those of all parts, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    faiss = import_faiss()
    pointers = faiss.InvertedListsPtrVector()
    for part in parts:
        pointers.push_back(part)
    return faiss.HStackInvertedLists(pointers.size(), pointers.data())


def merge_segments(folder: Path, mapped: MappedSegments, removed: np.ndarray, codec: FeatureCodec) -> Segment:
    """Write all pictures but the `removed` (rising) as one segment, with new numbers from 0 on."""

    def kept(numbers: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, bytes]:
        before = np.searchsorted(removed, numbers, side="right")
        keep = before == np.searchsorted(removed, numbers)
        return (numbers - before)[keep], codes[keep].tobytes()

    segment = Segment(0, 0, np.zeros(codec.lists, np.int64))
    with atomic_write(segment.refinement_path(folder)) as file:
        for numbers, codes in mapped.read_refinements():
            file.write(kept(numbers, codes)[1])
    with atomic_write(segment.lists_path(folder)) as file:
        for number in range(codec.lists):
            renumbered = []
            for numbers, codes in mapped.read_list(number):
                own, content = kept(numbers, codes)
                file.write(content)
                renumbered.append(own)
            segment.sizes[number] = sum(map(len, renumbered))
            file.write(np.concatenate([np.empty(0, np.int64), *renumbered]).tobytes())
    return segment
