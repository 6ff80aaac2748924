"""An index of features on disk: it finds the pictures nearest to a picture, by cosine similarity."""

import math
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastreid.config import get_cfg
from fastreid.deploy.reid_model import ReIDModel
from fastreid.deploy.search.codec import FeatureCodec, import_faiss, normalised
from fastreid.deploy.search.exact import largest, nearest, recall
from fastreid.deploy.search.folder import BUILD, TABLE, generation_folder, read_facts
from fastreid.deploy.search.segments import MappedSegments
from fastreid.deploy.search.table import PictureTable
from fastreid.engine import find_checkpoint
from fastreid.evaluation.report import describe_checkpoint
from fastreid.utils.errors import UserError

UNUSABLE = OSError, EOFError, ValueError, RuntimeError, LookupError, sqlite3.Error  # by what is damaged
REFINED = 16  # candidates for each picture that is wanted, whose refinement is read
BLOCK = 64  # queries whose candidates are found at once
DECODED = 1024  # candidates whose refinement is decoded at once: 3 MB of 768-wide features


class SearchIndex:
    """The pictures of an index, ready to be searched; features stay on disk until a search reads them.

    What is added while it is open shows when it is opened again, what is removed at once.

    Attributes:
        folder: of the generation.
        codec: what its codes mean.
        table: of the pictures.
        mapped: the codes.
        facts: ``kind``, ``recipe`` (a `FeatureCodec`'s), ``lists``, ``probes`` (how many of them a search
            reads), ``recall`` (share of the ten exact neighbours found when it was built), and of the
            features ``checkpoint``, ``config`` and ``parts`` (``views`` of older ones).
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        """Open the generation in `folder`; see :meth:`open`."""
        self.folder, self.facts = folder, facts
        self.codec = FeatureCodec.open(folder, facts["recipe"])
        self.table = PictureTable(folder / TABLE)
        segments = self.table.segments()
        self.mapped = MappedSegments(folder, segments, self.codec)
        self.codec.ivf.replace_invlists(self.mapped.invlists, False)
        self.codec.ivf.ntotal = self.mapped.end

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "SearchIndex":
        """Open the index that was built in `folder`.

        Raises:
            UserError: without faiss, if there is none, if an earlier version made it, or if files are
            damaged.
        """
        import_faiss()
        facts = read_facts(folder)
        while True:
            try:
                return cls(generation_folder(folder, facts), facts)
            except UNUSABLE as error:
                earlier, facts = facts, read_facts(folder)
                if facts["generation"] == earlier["generation"]:  # else it was replaced meanwhile
                    raise UserError(f"no usable index in {folder} ({error})", BUILD) from error

    def __len__(self) -> int:
        return len(self.table)

    def search(
        self, features: np.ndarray, top: int, where: str | None = None, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest pictures of each query.

        Args:
            features: (Q, D) float32, of any length.
            top: how many; fewer come back from a smaller index.
            where: an SQL expression of the table's columns that pictures must meet, such as
                ``camid = 3 AND time < '12:00'``. The fewer they are, the more lists are
                read.
            exact: read everything, which gives what an exact index would as far as the codes tell.

        Returns:
            (Q, k) float32 cosine similarities, falling, and (Q, k) int64 numbers for :meth:`rows`; -1 behind
            the last when a search met fewer pictures. Of ``ivfpq`` they are those of the pictures' coded
            features.

        Raises:
            UserError: for features of another width, or what is no such expression.
        """
        if features.shape[1] != self.codec.width:
            raise UserError(f"features have width {features.shape[1]}, the index {self.codec.width}")
        with self.table.transaction(change=False):
            chosen = self._chosen(where)
        share = 1.0 if chosen is None else max(1, int(chosen.sum())) / max(1, len(self))
        k = min(top, len(self) if chosen is None else int(chosen.sum()))
        probes = min(self.codec.lists, math.ceil(self.facts["probes"] / min(1.0, share)))
        return self.find(normalised(features), k, probes, chosen, exact)

    def find(
        self,
        queries: np.ndarray,
        k: int,
        probes: int = 1,
        chosen: np.ndarray | None = None,
        exact: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest of queries of length 1, in `probes` lists and among the `chosen` (N,) bool."""
        if not k or not len(queries):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        rotated = np.ascontiguousarray(self.codec.rotate(queries))
        if self.codec.lossless and (exact or self.codec.lists == 1):
            return nearest(rotated, k, self._features(chosen))
        faiss = import_faiss()
        selector = {}
        if chosen is not None:
            selector["sel"] = faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
        parameters = faiss.SearchParametersIVF(nprobe=self.codec.lists if exact else probes, **selector)
        if self.codec.refinement is None:
            return self._read_lists(rotated, k, parameters)
        candidates = min(k * REFINED, self.mapped.end)
        parts = [
            self._refine(block, *self._read_lists(block, candidates, parameters), k)
            for block in np.split(rotated, range(BLOCK, len(rotated), BLOCK))
        ]
        scores, items = (np.concatenate(part) for part in zip(*parts, strict=True))
        return scores, items

    def rows(self, items: np.ndarray) -> dict[int, dict[str, Any]]:
        """Return the columns of pictures by their numbers; those that were removed are missing."""
        return self.table.rows(items[items >= 0])

    def recall(self, features: np.ndarray, top: int, where: str | None = None) -> float | None:
        """Return the share of the queries' exact `top` neighbours that :meth:`search` finds.

        None where the index has not the features themselves to tell, or there is nothing to find.
        """
        if not self.codec.lossless:
            return None
        exact = self.search(features, top, where, exact=True)[1]
        if not exact.size:
            return None
        return recall(self.search(features, top, where)[1], exact)

    def load_model(
        self, checkpoint: str | os.PathLike | None = None, device: str = "auto", imports: Sequence[str] = ()
    ) -> ReIDModel:
        """Load the model, with its settings, that the indexed features were made with.

        Args:
            checkpoint: where its weights are now, as in `find_checkpoint`; None: where they were.
            imports: as in `ReIDModel.from_checkpoint`.

        Raises:
            UserError: if the file is not there or has other weights.
        """
        known = self.facts["checkpoint"]
        path = str(find_checkpoint(checkpoint)) if checkpoint else known["path"]
        found = describe_checkpoint(path)
        if found is None:
            raise UserError(f"checkpoint {path} of the index not found", "name it with --model")
        if found["sha256"] != known["sha256"]:
            raise UserError(
                f"{path} has other weights than the indexed features ({known['path']})",
                "name the checkpoint that they were made with, or extract and index the features again",
            )
        cfg = get_cfg()
        cfg.merge_stored(self.facts["config"], "the index", imports)
        return ReIDModel.from_checkpoint(path, cfg, device)

    def _chosen(self, where: str | None) -> np.ndarray | None:
        """Return (N,) bool of the numbers that may be found; None: all of them."""
        end = self.mapped.end
        if where is not None:
            chosen = np.zeros(end, bool)
            items = self.table.select(where)
            chosen[items[items < end]] = True  # others were added since this was opened
            return chosen
        removed = self.table.removed()
        if not len(removed):
            return None
        chosen = np.ones(end, bool)
        chosen[removed[removed < end]] = False
        return chosen

    def _features(self, chosen: np.ndarray | None) -> Any:
        """Give ``(numbers, features)`` of the chosen pictures, as a lossless index has them."""
        for number in range(self.codec.lists):
            for items, features in self.mapped.read_list(number, np.float32):
                if chosen is not None:
                    kept = chosen[items]
                    items, features = items[kept], features[kept]
                yield items, features

    def _read_lists(self, queries: np.ndarray, k: int, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        scores, items = self.codec.ivf.search(queries, k, params=parameters)
        self.mapped.check(items[items >= 0])
        return scores, items

    def _refine(
        self, queries: np.ndarray, scores: np.ndarray, items: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Add to each candidate's product that with what its code lost, and return the k largest."""
        scores[items < 0] = -np.inf
        owners, places = np.nonzero(items >= 0)
        for start in range(0, len(owners), DECODED):
            found = owners[start : start + DECODED], places[start : start + DECODED]
            lost = self.codec.refinement.sa_decode(self.mapped.refinements(items[found]))
            scores[found] += np.einsum("nd,nd->n", queries[found[0]], lost)
        return largest(scores, items, k)
