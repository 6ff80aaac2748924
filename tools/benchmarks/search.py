"""An index of many features from its building to its compacting, as `parsers.search` describes."""

import argparse
import csv
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from fastreid.deploy.feature_files import FACTS, IMAGES, FeatureSet
from fastreid.deploy.search import (
    SearchIndex,
    add_pictures,
    build_index,
    compact_index,
    recall,
    remove_pictures,
)
from fastreid.deploy.search.codec import import_faiss, normalised
from fastreid.deploy.search.exact import nearest
from fastreid.utils.complexity import peak_memory, reset_peak_memory
from fastreid.utils.file_io import sha256_of, write_json

CAMERAS = 13
SHARD_SIZE = 10_000
PEOPLE = SHARD_SIZE // 20  # of each shard
LEVEL_DIRECTIONS, FALL = 64, 6
SPREAD = 0.8  # of a person's pictures, in units of that of the persons
TOP = 10


def main(args: argparse.Namespace) -> None:
    faiss = import_faiss()
    faiss.omp_set_num_threads(args.threads)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {args.threads} threads,")
    print(f"faiss {faiss.__version__}, numpy {np.__version__};", end=" ")
    print(f"{args.features} features of {args.width} numbers, {args.queries} queries")
    with nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), args)
        rows = [*bench.build(), *bench.search(), *bench.change()]
    print(tabulate(rows, ["step", "seconds", "peak memory", "note"], disable_numparse=True))


class Population(NamedTuple):
    """Features of persons that can be drawn again, a block of them at a time."""

    axes: np.ndarray
    """(D, D) float32, orthogonal rows with the lengths of the standard deviations."""

    @classmethod
    def of_width(cls, width: int) -> "Population":
        axes = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))[0]
        variances = 1 / (1 + (np.arange(1, width + 1) / LEVEL_DIRECTIONS) ** FALL)
        return cls((axes * np.sqrt(variances)[:, None]).astype(np.float32))

    def draw(self, block: int, count: int, again: int = 0) -> np.ndarray:
        """Draw `count` pictures of a block's persons, (count, D) of length 1; `again`: other pictures."""
        rng = np.random.default_rng([block, 0])
        centres = rng.standard_normal((PEOPLE, len(self.axes)), np.float32)
        rng = np.random.default_rng([block, 1 + again])
        noise = rng.standard_normal((count, len(self.axes)), np.float32)
        return normalised((centres[np.arange(count) % PEOPLE] + SPREAD * noise) @ self.axes)


class Bench:
    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.index, self.kind = folder / "index", args.kind
        self.population = Population.of_width(args.width)
        self.features = self._write(folder / "features", args.features, 0)
        blocks = self.features.num_shards
        self.more = self._write(folder / "more", args.added, blocks)
        self.first_added = blocks * SHARD_SIZE
        per_block = -(-args.queries // blocks)
        drawn = [self.population.draw(block, per_block, again=1) for block in range(blocks)]
        self.queries = np.concatenate(drawn)[: args.queries]

    def build(self) -> Iterator[list[str]]:
        seconds, peak, index = measured(lambda: build_index(self.features, self.index, self.kind))
        files = {path.name: path.stat().st_size / len(index) for path in index.folder.iterdir()}
        table = files.pop("pictures.sqlite")
        note = (
            f"{index.facts['recipe']}, {index.facts['probes']} lists read;"
            f" {sum(files.values()):.1f} bytes a picture, its row in the table {table:.0f}"
        )
        yield ["build", f"{seconds:.0f}", gigabytes(peak), note]

    def search(self) -> Iterator[list[str]]:
        before = self.first_added
        yield self._searched("search", self._truth(lambda rows: rows < before))
        truth = self._truth(lambda rows: (rows < before) & (rows % CAMERAS == 1))
        yield self._searched("search, camid = 1", truth, "camid = 1")

    def change(self) -> Iterator[list[str]]:
        seconds, peak, count = measured(lambda: remove_pictures(self.index, "camid = 0"))
        yield ["remove", f"{seconds:.1f}", gigabytes(peak), f"{count} pictures: camid = 0"]
        seconds, peak, count = measured(lambda: add_pictures(self.index, self.more))
        yield ["add", f"{seconds:.1f}", gigabytes(peak), f"{count} pictures"]
        truth = self._truth(lambda rows: (rows % CAMERAS != 0) | (rows >= self.first_added))
        yield self._searched("search again", truth)
        seconds, peak, _ = measured(lambda: compact_index(self.index))
        yield ["compact", f"{seconds:.1f}", gigabytes(peak), ""]
        yield self._searched("search again", truth)

    def _searched(self, step: str, truth: np.ndarray, where: str | None = None) -> list[str]:
        """Search with all queries at once, then with 50 of them one by one."""
        index = SearchIndex.open(self.index)
        seconds, peak, (_, items) = measured(lambda: index.search(self.queries, TOP, where))
        rows = index.rows(items) | {-1: {"row": -1}}
        found = np.array([[rows[item]["row"] for item in line] for line in items.tolist()])
        singly = [measured(lambda q=q: index.search(q[None], TOP, where))[0] for q in self.queries[:50]]
        note = (
            f"recall@{TOP} {recall(found, truth):.4f}; {1000 * seconds / len(self.queries):.1f} ms a query,"
            f" one by one {1000 * np.median(singly):.1f}"
        )
        return [step, f"{seconds:.1f}", gigabytes(peak), note]

    def _truth(self, chosen: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the rows of the exact neighbours among those for which `chosen` holds."""

        def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for features, first in ((self.features, 0), (self.more, self.first_added)):
                for own, part in features.shards():
                    rows = first + np.arange(own.start, own.stop)
                    keep = chosen(rows)
                    yield rows[keep], part[keep]

        return nearest(self.queries, TOP, parts())[1]

    def _write(self, folder: Path, count: int, first_block: int) -> FeatureSet:
        """Write features and their table as an extraction does."""
        facts = {"checkpoint": {"path": "model.pth", "sha256": ""}, "config": {}, "parts": ["person"]}
        facts |= {"images": count, "width": len(self.population.axes), "images_sha256": ""}
        features = FeatureSet(folder, facts | {"format": "npy", "shard_size": SHARD_SIZE})
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / IMAGES, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["path", "pid", "camid", "time", "row"])
            for number in range(features.num_shards):
                rows = features.rows(number)
                for row in range(first_block * SHARD_SIZE + rows.start, first_block * SHARD_SIZE + rows.stop):
                    pid = row // SHARD_SIZE * PEOPLE + row % PEOPLE
                    camid, clock = row % CAMERAS, f"2026-01-{1 + row % 28:02d} {row % 24:02d}:{row % 60:02d}"
                    writer.writerow([f"camera_{camid:02d}/{row:09d}.jpg", pid, camid, clock, row])
                block = self.population.draw(first_block + number, rows.stop - rows.start)
                features.write_shard(number, block, {})
        features.facts["images_sha256"] = sha256_of(folder / IMAGES)
        write_json(folder / FACTS, features.facts)
        return features


def measured(action: Callable[[], Any]) -> tuple[float, int, Any]:
    """Return seconds, highest resident size and result of a call."""
    reset_peak_memory()
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, peak_memory(), result


def gigabytes(count: int) -> str:
    return f"{count / 2**30:.2f} GB"
