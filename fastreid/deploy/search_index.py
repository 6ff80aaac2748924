"""A faiss index of features: it finds the pictures nearest to a picture, by cosine similarity."""

import json
import logging
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastreid.config import get_cfg
from fastreid.deploy.feature_files import FeatureSet, feature_choice
from fastreid.deploy.image_lists import Columns, read_columns, write_columns
from fastreid.deploy.reid_model import ReIDModel
from fastreid.evaluation.report import describe_checkpoint
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, write_json

logger = logging.getLogger(__name__)

FACTS, INDEX, IMAGES = "index.json", "index.faiss", "index.csv"
KINDS = ("auto", "exact", "ivf")
KEYS = {"kind", "lists", "probes", "recall", "checkpoint", "config"}

EXACT_LIMIT = 100_000  # pictures: up to here `auto` compares a query with every one of them
TRAINING_PER_LIST = 64  # pictures that place a list's centre; faiss warns below 39
TUNING_QUERIES = 200  # indexed pictures whose neighbours decide how many lists a search reads
TUNING_K = 10
TUNING_RECALL = 0.99


class SearchIndex:
    """The normalised features of pictures, ready to be searched by inner product.

    An *exact* index compares a query with every picture. An *IVF* index (inverted file; Sivic and Zisserman,
    Video Google, ICCV 2003) keeps N pictures in 4 sqrt(N) lists, by the nearest of as many centres, and reads
    only the lists whose centres are nearest to the query: the smallest power of two that finds 99 % of the
    ten exact neighbours of 200 indexed pictures, drawn at random, themselves not counted.

    Attributes:
        index: faiss's.
        columns: the table of the pictures; row i is the index's item i.
        facts: ``kind``, ``lists`` and ``probes`` (1 and 1 for exact), ``recall`` (that share, 1.0 for exact),
            and of the features ``checkpoint``, ``config`` and ``parts`` (``views`` of older ones).
    """

    def __init__(self, index: Any, columns: Columns, facts: dict[str, Any]) -> None:
        self.index, self.columns, self.facts = index, columns, facts

    def __len__(self) -> int:
        return len(self.columns["path"])

    @classmethod
    def build(cls, features: FeatureSet, kind: str = "auto", seed: int = 0) -> "SearchIndex":
        """Index features; rows that are not finite (pictures that could not be read) are left out.

        In memory are the index (4 D bytes for each picture) and one shard.

        Args:
            kind: ``exact``, ``ivf``, or ``auto``: exact up to 100,000 pictures.
            seed: which pictures place the centres and tune the search.

        Raises:
            UserError: without faiss, or if there is nothing to index.
        """
        rows = _finite_rows(features)
        if not len(rows):
            raise UserError(f"none of the {len(features)} features in {features.folder} is finite")
        if len(rows) < len(features):
            logger.warning("%d pictures without features are left out", len(features) - len(rows))
        if kind == "auto":
            kind = "exact" if len(rows) <= EXACT_LIMIT else "ivf"
        facts = {key: features.facts[key] for key in ("checkpoint", "config")} | feature_choice(
            features.facts
        )
        facts |= {"kind": kind, "lists": 1, "probes": 1, "recall": 1.0}
        generator = np.random.default_rng(seed)
        index = import_faiss().IndexFlatIP(features.facts["width"])
        if kind == "ivf":
            index = _empty_ivf(index, features, rows, generator)
            facts["lists"] = index.nlist
        for own, part in features.shards():
            kept = rows[np.searchsorted(rows, own.start) : np.searchsorted(rows, own.stop)]
            index.add(normalised(part[kept - own.start]))
        columns = {name: [values[row] for row in rows] for name, values in features.columns().items()}
        built = cls(index, columns, facts)
        if kind == "ivf":
            items = _draw(generator, np.arange(len(rows)), TUNING_QUERIES)
            built._tune(_take(features, rows[items]), items)
        return built

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "SearchIndex":
        """Open the index that :meth:`save` wrote.

        Raises:
            UserError: without faiss, or if there is none or its files do not belong together.
        """
        faiss, folder = import_faiss(), Path(folder)
        try:
            facts = _read_facts(folder)
            index = faiss.read_index(str(folder / INDEX))
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"no usable index in {folder}", "build one with tools/search.py build") from error
        opened = cls(index, read_columns(folder / IMAGES), facts)
        if index.ntotal != len(opened):
            raise UserError(
                f"{folder}: {INDEX} has {index.ntotal} pictures, {IMAGES} {len(opened)}", "build it again"
            )
        return opened

    def save(self, folder: str | os.PathLike) -> None:
        """Write the index to a folder; one that is there is replaced.

        Raises:
            UserError: if the folder cannot be written, or holds files of these names that are no index.
        """
        faiss, folder = import_faiss(), Path(folder)
        check_index_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / INDEX).unlink(missing_ok=True)  # the last to come back: without it there is no index
            for partial in folder.glob(f".{INDEX}.*.tmp"):  # left by a process that was killed
                partial.unlink()
            write_json(folder / FACTS, self.facts)  # first, so that all that follows is known as ours
            write_columns(folder / IMAGES, self.columns)
            with atomic_write(folder / INDEX) as file:
                faiss.write_index(self.index, faiss.PyCallbackIOWriter(file.write))
        except (OSError, RuntimeError) as error:
            raise UserError(f"cannot write the index in {folder}: {error}") from error

    def search(self, features: np.ndarray, top: int, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest pictures of each query.

        Args:
            features: (Q, D) float32, of any length.
            top: how many; fewer come back from a smaller index.
            exact: read all lists of an IVF index, which gives what an exact index would.

        Returns:
            (Q, k) float32 cosine similarities, falling, and (Q, k) int64 rows of `columns`; -1 behind the
            last when an IVF search met fewer pictures.

        Raises:
            UserError: for features of another width.
        """
        if features.shape[1] != self.index.d:
            raise UserError(f"features have width {features.shape[1]}, the index {self.index.d}")
        probes = self.facts["lists"] if exact else self.facts["probes"]
        return self._search(normalised(features), min(top, len(self)), probes)

    def recall(self, features: np.ndarray, top: int) -> float:
        """Return the share of the queries' exact `top` neighbours that :meth:`search` finds."""
        return recall(self.search(features, top)[1], self.search(features, top, exact=True)[1])

    def load_model(
        self, checkpoint: str | os.PathLike | None = None, device: str = "auto", imports: Sequence[str] = ()
    ) -> ReIDModel:
        """Load the model, with its settings, that the indexed features were made with.

        Args:
            checkpoint: where its weights are now; None: where they were.
            imports: as in `ReIDModel.from_checkpoint`.

        Raises:
            UserError: if the file is not there or has other weights.
        """
        known = self.facts["checkpoint"]
        path = str(checkpoint or known["path"])
        found = describe_checkpoint(path)
        if found is None:
            raise UserError(f"checkpoint {path} of the index not found", "name it with --checkpoint")
        if found["sha256"] != known["sha256"]:
            raise UserError(
                f"{path} has other weights than the indexed features ({known['path']})",
                "name the checkpoint that they were made with, or extract and index the features again",
            )
        cfg = get_cfg()
        cfg.merge_stored(self.facts["config"], "the index", imports)
        return ReIDModel.from_checkpoint(path, cfg, device)

    def _search(self, queries: np.ndarray, k: int, probes: int) -> tuple[np.ndarray, np.ndarray]:
        if self.facts["kind"] == "exact":
            return self.index.search(queries, k)
        return self.index.search(queries, k, params=import_faiss().SearchParametersIVF(nprobe=probes))

    def _tune(self, queries: np.ndarray, items: np.ndarray) -> None:
        """Choose `probes` by the neighbours of indexed pictures; `queries` are the features of `items`."""
        k, lists = min(TUNING_K, len(self) - 1), self.facts["lists"]
        exact = _others(self._search(queries, k + 1, lists)[1], items)
        probes = 1
        while True:
            share = recall(_others(self._search(queries, k + 1, probes)[1], items), exact)
            self.facts |= {"probes": probes, "recall": share}
            if share >= TUNING_RECALL or probes == lists:
                return
            probes = min(2 * probes, lists)


def check_index_folder(folder: str | os.PathLike) -> None:
    """Check that an index may be written to `folder`; makes nothing.

    Raises:
        UserError: if it holds files of an index's names, but no index.
    """
    with suppress(OSError, ValueError):
        _read_facts(Path(folder))
        return
    for name in (FACTS, INDEX, IMAGES):
        if (path := Path(folder, name)).exists():
            raise UserError(f"{path} is there, but no {FACTS} of an index with it", "choose another folder")


def _read_facts(folder: Path) -> dict[str, Any]:
    """Read the facts of the index in `folder`, be it finished or not; OSError or ValueError without one."""
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    if not isinstance(facts, dict) or not facts.keys() >= KEYS or not feature_choice(facts):
        raise ValueError(f"{folder / FACTS} lacks what the facts of an index have")
    return facts


def _empty_ivf(centres: Any, features: FeatureSet, rows: np.ndarray, generator: np.random.Generator) -> Any:
    """Make an IVF index whose lists' centres, the items of the flat index `centres`, `rows` place."""
    faiss = import_faiss()
    lists = max(1, min(round(4 * math.sqrt(len(rows))), len(rows) // TRAINING_PER_LIST))
    index = faiss.IndexIVFFlat(centres, centres.d, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True  # the features have length 1, and so have the centres
    index.train(_take(features, _draw(generator, rows, TRAINING_PER_LIST * lists)))
    return index


def import_faiss() -> ModuleType:
    """Return the faiss module.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise UserError("searching needs faiss, which is not installed", "pip install faiss-cpu") from error
    return faiss


def normalised(features: np.ndarray) -> np.ndarray:
    """Return the rows of (N, D) as contiguous float32 of length 1; a zero row stays zero."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.ascontiguousarray(features / np.maximum(lengths, 1e-12), dtype=np.float32)


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the share of the row numbers of `exact` that `found` has in the same row; -1 is none."""
    hits = [len(np.intersect1d(row, true[true >= 0])) for row, true in zip(found, exact, strict=True)]
    return sum(hits) / max(1, int((exact >= 0).sum()))


def _others(found: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(Q, k + 1) -> (Q, k): without the query's own item or, where that was not found, the last one."""
    keep = found != items[:, None]
    keep[keep.all(axis=1), -1] = False
    return found[keep].reshape(len(found), -1)


def _finite_rows(features: FeatureSet) -> np.ndarray:
    """Return (n,) int64, rising."""
    finite = [rows.start + np.flatnonzero(np.isfinite(part).all(axis=1)) for rows, part in features.shards()]
    return np.concatenate([np.empty(0, np.int64), *finite])


def _draw(generator: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """Draw at most `count` of `rows`, rising."""
    return np.sort(generator.choice(rows, min(count, len(rows)), replace=False))


def _take(features: FeatureSet, rows: np.ndarray) -> np.ndarray:
    """Return normalised features of `rows`, which rise."""
    parts = []
    for own, part in features.shards():
        chosen = rows[np.searchsorted(rows, own.start) : np.searchsorted(rows, own.stop)]
        parts.append(part[chosen - own.start])
    return normalised(np.concatenate(parts))
