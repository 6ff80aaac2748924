"""Image files that cannot be used: found before training where that is cheap, and replaced on request."""

import logging
import os
import stat
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fastreid.data.datasets.files import missing_paths
from fastreid.structures import Sample
from fastreid.utils.errors import UserError

logger = logging.getLogger(__name__)


def missing_or_empty(paths: Iterable[str]) -> list[str]:
    """Return those of `paths` that are no files or hold no bytes, sorted; opens none, lists folders once.

    Raises:
        UserError: for a folder that may not be read.
    """
    return sorted(missing_paths(paths, counts=_holds_bytes))


def check_image_files(paths: Sequence[str], source: str, may_skip: bool, skip: bool = False) -> None:
    """Stop for missing, empty and special files, before any time is spent on training.

    Args:
        source: whose images they are, for the message.
        may_skip: whether the message offers DATALOADER.ON_BAD_IMAGE skip as a way out.
        skip: warn instead, as long as there are usable files.

    Raises:
        UserError: with their number and the first of them.
    """
    bad = missing_or_empty(paths)
    if not bad:
        return
    first = ", ".join(bad[:3]) + (", …" if len(bad) > 3 else "")
    wrong = "missing or empty (0 bytes) or no files"
    problem = f"{len(bad)} of the {len(paths)} images of {source} are {wrong}: {first}"
    if skip and len(bad) < len(paths):
        logger.warning("%s: another image takes their place (DATALOADER.ON_BAD_IMAGE skip)", problem)
        return
    offer = ", or set DATALOADER.ON_BAD_IMAGE skip to train without them" if may_skip and not skip else ""
    raise UserError(f"{problem}", f"restore the files{offer}")


class Replacements:
    """Choose images that stand in for one that cannot be read.

    Args:
        samples: the images to choose from.
        seed: fixes the choice.
    """

    def __init__(self, samples: Sequence[Sample], seed: int) -> None:
        self._pids = np.array([sample.pid for sample in samples], dtype=np.int64)
        self._seed = seed

    def in_turn(self, index: int, number: int) -> Iterator[int]:
        """Give other indices for draw `number` of image `index`: those of its identity, then all others.

        The order is random, and a function of the seed and the draw's number alone.
        """
        order = np.random.default_rng([self._seed, number]).permutation(len(self._pids))
        others = order[order != index]
        same = self._pids[others] == self._pids[index]
        yield from others[same].tolist()
        yield from others[~same].tolist()


def _holds_bytes(entry: os.DirEntry) -> bool:
    try:
        status = entry.stat()
    except OSError:  # a link to nowhere
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0
