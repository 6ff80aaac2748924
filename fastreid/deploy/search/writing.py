"""Build an index of features shard by shard, add pictures, remove some, and write it again without them."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from fastreid.config import get_cfg
from fastreid.deploy.feature_facts import different_settings, feature_choice
from fastreid.deploy.feature_files import FeatureSet
from fastreid.deploy.search.codec import Codes, FeatureCodec, normalised, parse_recipe
from fastreid.deploy.search.folder import (
    TABLE,
    change,
    check_index_folder,
    new_generation,
)
from fastreid.deploy.search.index import SearchIndex
from fastreid.deploy.search.segments import CHUNK, merge_segments, write_segment
from fastreid.deploy.search.table import PictureTable, column_types
from fastreid.deploy.search.tuning import draw, take, tune
from fastreid.utils.errors import UserError

logger = logging.getLogger(__name__)

KINDS = ("auto", "exact", "ivf", "ivfpq")
EXACT_LIMIT = 100_000  # pictures: up to here `auto` compares a query with every one of them
IVF_LIMIT = 1_000_000  # up to here it keeps the features as they are
TRAINING_PER_LIST = 64  # pictures that place a list's centre; faiss warns below 39
TRAINING_BYTES = 768 << 20  # of features: with their copies under 3 GB
CODE_BYTES = 32, 64  # of ivfpq: the code and its refinement; with the number 104 bytes a picture


def build_index(
    features: FeatureSet, folder: str | os.PathLike, kind: str = "auto", seed: int = 0
) -> SearchIndex:
    """Index features in `folder`; an index that is there is replaced at the end.

    Pictures whose features are not finite (they could not be read), or whose path came before, are left out.
    In memory are at most 768 MB of features with copies of parts of them, and some 20 bytes a picture.

    Args:
        kind: ``exact``, ``ivf``, ``ivfpq``, ``auto`` (exact up to 100,000 pictures, ivf up to 1,000,000), or
            the factory string of a `FeatureCodec`.
        seed: which pictures train and tune it.

    Raises:
        UserError: without faiss, for an impossible kind, if there is nothing to index, or if the folder
            cannot be written, holds other files of these names, or is being changed by another process.
    """
    check_index_folder(folder)
    rows = _finite_rows(features)
    if not len(rows):
        raise UserError(f"none of the {len(features)} features in {features.folder} is finite")
    if len(rows) < len(features):
        logger.warning("%d pictures without features are left out", len(features) - len(rows))
    kind, recipe = choose_recipe(kind, len(rows), features.facts["width"])
    facts = {key: features.facts[key] for key in ("checkpoint", "config")} | feature_choice(features.facts)
    facts |= {"kind": kind, "recipe": recipe, "lists": 1, "probes": 1, "recall": 1.0}
    generator = np.random.default_rng(seed)
    with change(folder, build=True), new_generation(folder, facts) as place:
        logger.info("Training %s", recipe)
        sample = draw(generator, rows, _training_size(features.facts["width"]))
        codec = FeatureCodec.train(recipe, take(features, sample))
        codec.save(place)
        types = column_types(features.table_rows())
        with closing(PictureTable.create(place / TABLE, types)) as table, table.transaction():
            kept = _add(features, table, place, codec, 0, 0)
        facts["lists"] = codec.lists
        if kind != "exact":
            logger.info("Choosing the number of lists that a search reads")
            facts |= tune(SearchIndex(place, facts), features, kept, generator)
    return SearchIndex.open(folder)


def add_pictures(folder: str | os.PathLike, features: FeatureSet) -> int:
    """Add the pictures of features to an index; those whose path it has already are left out.

    Returns:
        how many were added.

    Raises:
        UserError: for features of other weights, parts or settings, or other columns, and as `build_index`.
    """
    with change(folder):
        index = SearchIndex.open(folder)
        _check_same(index, features)
        for partial in index.folder.glob(".*.tmp"):  # of a process that was killed
            partial.unlink()
        number = index.mapped.segments[-1].number + 1
        with closing(PictureTable(index.folder / TABLE, writable=True)) as table, table.transaction():
            return len(_add(features, table, index.folder, index.codec, number, index.mapped.end))


def remove_pictures(
    folder: str | os.PathLike, where: str | None = None, paths: list[str] | None = None
) -> int:
    """Remove pictures from an index, by an SQL expression of the columns or by their paths.

    They are not found from now on; their codes leave the disk with `compact_index`.

    Returns:
        how many were removed.

    Raises:
        UserError: for an expression that is none, and if the index cannot be changed.
    """
    with change(folder):
        reader = SearchIndex.open(folder).table
        items = np.unique(reader.select(where) if where is not None else reader.find(paths or []))
        with closing(PictureTable(reader.path, writable=True)) as table, table.transaction():
            table.remove(items)
        return len(items)


def compact_index(folder: str | os.PathLike) -> None:
    """Write an index again, without what was removed and as one segment.

    Raises:
        UserError: if no picture is left, or it cannot be written.
    """
    with change(folder):
        index = SearchIndex.open(folder)
        if not len(index):
            raise UserError(f"no picture is left in the index {folder}", "build another one")
        with new_generation(folder, index.facts) as place:
            FeatureCodec.open(index.folder, index.facts["recipe"]).save(place)
            with closing(PictureTable.create(place / TABLE, index.table.columns)) as table:
                table.copy_pictures(index.folder / TABLE)
                segment = merge_segments(place, index.mapped, index.table.removed(), index.codec)
                table.add_segment(segment)


def choose_recipe(kind: str, count: int, width: int) -> tuple[str, str]:
    """Return the kind that ``auto`` means for `count` features of `width` numbers, and its factory string.

    Raises:
        UserError: for an unknown or impossible one.
    """
    if kind == "auto":
        kind = "exact" if count <= EXACT_LIMIT else "ivf" if count <= IVF_LIMIT else "ivfpq"
    trained_by = min(count, _training_size(width))
    lists = max(1, min(round(4 * math.sqrt(count)), trained_by // TRAINING_PER_LIST))
    code, refinement = (
        _divisor(width, limit) for limit in (min(CODE_BYTES[0], width // 4), min(CODE_BYTES[1], width // 2))
    )
    recipes = {
        "exact": "IVF1,Flat",
        "ivf": f"IVF{lists},Flat",
        "ivfpq": f"OPQ{refinement},IVF{lists},PQ{code},Refine(PQ{refinement})",
    }
    recipe = recipes.get(kind, kind)
    parse_recipe(recipe, width)
    return kind, recipe


def _divisor(width: int, limit: int) -> int:
    """Return the largest divisor of `width` up to `limit`, at least 1."""
    return next(number for number in range(max(1, limit), 0, -1) if width % number == 0)


def _training_size(width: int) -> int:
    return TRAINING_BYTES // (4 * width)


def _add(
    features: FeatureSet, table: PictureTable, place: Path, codec: FeatureCodec, number: int, first: int
) -> np.ndarray:
    """Add features as a segment, their pictures to the table; return their rows in `features`, rising."""
    lines = features.table_rows()
    adder = table.adder(next(lines))
    kept = [np.empty(0, np.int64)]

    def parts() -> Iterator[Codes]:
        item, known = first, 0
        for own, part in features.shards():
            finite = np.isfinite(part).all(axis=1).tolist()
            chosen = []
            for row, line in enumerate(islice(lines, len(part))):
                if finite[row] and adder.add(item + len(chosen), line):
                    chosen.append(row)
            rows = np.array(chosen, np.int64)
            for start in range(0, len(rows), CHUNK):
                yield codec.encode(normalised(part[rows[start : start + CHUNK]]))
            kept.append(own.start + rows)
            item += len(rows)
            known += sum(finite) - len(rows)
            logger.info("%d of %d features indexed", own.stop, len(features))
        if known:
            logger.warning("%d pictures whose path the index already has are left out", known)

    segment = write_segment(place, number, first, codec, parts())
    if segment.count:
        table.add_segment(segment)
    return np.concatenate(kept)


def _finite_rows(features: FeatureSet) -> np.ndarray:
    """Return (n,) int64, rising."""
    finite = [rows.start + np.flatnonzero(np.isfinite(part).all(axis=1)) for rows, part in features.shards()]
    return np.concatenate([np.empty(0, np.int64), *finite])


def _check_same(index: SearchIndex, features: FeatureSet) -> None:
    facts, different = index.facts, []
    if facts["checkpoint"]["sha256"] != features.facts["checkpoint"]["sha256"]:
        different.append(f"weights ({features.facts['checkpoint']['path']})")
    if feature_choice(facts) != feature_choice(features.facts):
        different.append("parts")
    if features.facts["width"] != index.codec.width:
        different.append(f"width {features.facts['width']}")
    different += different_settings(features.facts["config"], facts["config"], get_cfg().declared)
    if different:
        raise UserError(
            f"{features.folder} has features of other {', '.join(different)} than the index",
            "extract them with the index's checkpoint and settings",
        )
