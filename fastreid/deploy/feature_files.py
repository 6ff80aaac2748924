"""Features on disk: shards of rows, the list of their pictures, and the facts of how they were made.

A folder holds ``features.json`` (see `FeatureSet.facts`), ``images.csv`` (a line for each picture: path
and, of a dataset, pid, camid, viewid, split and the names person, camera and view) and the shards
``features_00000.npy``, …: float32 (n, D), for the lines of ``images.csv`` one after the other. Shards of the
format ``npz`` hold ``features`` and the columns of their lines. Every file is complete when it appears under
its name.
"""

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fastreid.deploy.feature_facts import different_settings, read_facts
from fastreid.deploy.image_lists import Columns, csv_text, read_columns, stream_rows
from fastreid.deploy.labels import Names, column_arguments
from fastreid.deploy.reid_model import ReIDModel
from fastreid.deploy.shards import SHARD_SIZE, check_shard, read_shard
from fastreid.evaluation.report import describe_checkpoint
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, locked, sha256_of, write_json

logger = logging.getLogger(__name__)

FACTS, IMAGES, LOCK = "features.json", "images.csv", ".lock"
POLL_SECONDS = 0.5  # between looks at what other processes have done


class FeatureSet:
    """The features of one folder; all of its shards need not be there yet.

    Attributes:
        folder: where they are.
        facts: ``checkpoint`` (path, sha256), ``config`` (nested), ``method``, ``parts`` (names of the
            feature's parts, in their order), ``images`` N, ``width`` D, ``images_sha256`` (of images.csv),
            ``format``, ``shard_size``. Older folders have ``views`` (numbers of the generated ones) instead
            of parts.
    """

    def __init__(self, folder: str | os.PathLike, facts: dict[str, Any]) -> None:
        self.folder, self.facts = Path(folder), facts

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "FeatureSet":
        """Open the complete features of a folder, of which all is held against `facts` but the numbers.

        Raises:
            UserError: if there are none, the table is another, or shards are missing or not what they
                should be.
        """
        features = cls(folder, read_facts(Path(folder) / FACTS))
        features._check_table()
        if missing := features.missing:
            lacking = f"{len(missing)} of {features.num_shards} shards are missing"
            problem = f"the features in {folder} are not finished: {lacking}"
            raise UserError(problem, "run the same extraction again, it goes on where it was")
        for number in range(features.num_shards):
            check_shard(features.shard_path(number), features.shard_shape(number))
        return features

    def _check_table(self) -> None:
        """Check that images.csv is the table that the features were made of, whose lines name them."""
        path = self.folder / IMAGES
        try:
            same = sha256_of(path) == self.facts["images_sha256"]
            size = path.stat().st_size
        except OSError as error:
            raise UserError(f"table of pictures {path} cannot be read: {error.strerror}") from error
        if not same or size < len(self):  # a line has a byte at least
            raise UserError(
                f"{path} is not the table that the features in {self.folder} were made of: it was changed",
                "restore it, or extract the features again in another folder",
            )

    def __len__(self) -> int:
        return self.facts["images"]

    @property
    def num_shards(self) -> int:
        return -(-len(self) // self.facts["shard_size"])

    @property
    def missing(self) -> list[int]:
        """The numbers of the shards that are not there yet."""
        there = set(os.listdir(self.folder))
        return [number for number in range(self.num_shards) if self.shard_path(number).name not in there]

    def shard_path(self, number: int) -> Path:
        return self.folder / f"features_{number:05d}.{self.facts['format']}"

    def rows(self, number: int) -> slice:
        """Return the lines of images.csv, from 0, that shard `number` holds."""
        size = self.facts["shard_size"]
        return slice(number * size, min((number + 1) * size, len(self)))

    def shard_shape(self, number: int) -> tuple[int, int]:
        rows = self.rows(number)
        return rows.stop - rows.start, self.facts["width"]

    def columns(self) -> Columns:
        """Read the table of the pictures, as images.csv has it. UserError if it has not a line for each."""
        columns = read_columns(self.folder / IMAGES)
        self._check_lines(len(columns.get("path", ())))
        return columns

    def table_rows(self) -> Iterator[list[str]]:
        """Give the rows of images.csv in turn, the first with the names of the columns; else as `columns`."""
        lines = 0
        for row in stream_rows(self.folder / IMAGES):
            yield row
            lines += 1
        self._check_lines(lines - 1)

    def _check_lines(self, count: int) -> None:
        if count != len(self):
            problem = f"{self.folder / IMAGES} lists {count} pictures, but there are features of {len(self)}"
            raise UserError(problem, "extract them again in another folder")

    def shards(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Give ``(rows, (n, D) float32)`` of each shard in turn; ``npy`` ones stay on disk until read.

        Raises:
            UserError: for a file that cannot be read or has another shape.
        """
        for number in range(self.num_shards):
            yield self.rows(number), read_shard(self.shard_path(number), self.shard_shape(number))

    def load(self) -> np.ndarray:
        """Read all features, (N, D) float32."""
        features = np.empty((len(self), self.facts["width"]), np.float32)
        for rows, part in self.shards():
            features[rows] = part
        return features

    def claimed(self) -> Iterator[int]:
        """Give the missing shards until there is none, each to one process of those that share the folder.

        A shard is this process's until it asks for the next. Those of a process that dies are free again.
        """
        while missing := self.missing:
            idle = True
            for number in missing:
                if (path := self.shard_path(number)).is_file():
                    continue
                with locked(self.folder / f".{path.stem}.lock") as ours:
                    if ours and not path.is_file():
                        for killed in self.folder.glob(f".{path.name}.*.tmp"):  # what processes left
                            killed.unlink(missing_ok=True)
                        idle = False
                        yield number
            if idle:
                time.sleep(POLL_SECONDS)

    def write_shard(self, number: int, features: np.ndarray, columns: Columns) -> None:
        """Write shard `number`; `columns` is the whole table.

        Where there are no locks another process may take the unfinished file for that of a killed one, and
        remove it: then the shard is still missing.
        """
        with suppress(FileNotFoundError), atomic_write(self.shard_path(number)) as file:
            if self.facts["format"] == "npy":
                np.save(file, features)
            else:
                rows = self.rows(number)
                own = {name: np.array(values[rows]) for name, values in columns.items()}
                np.savez(file, features=features, **own)


def extract_to_files(
    model: ReIDModel,
    columns: Columns,
    folder: str | os.PathLike,
    views: Names = None,
    file_format: str = "npy",
    shard_size: int = SHARD_SIZE,
    skip_bad: bool = False,
    parts: Sequence[str] | None = None,
) -> FeatureSet:
    """Write the features of the pictures `columns["path"]` shard by shard; go on where a call was stopped.

    Several processes, also on several machines, share the work if they are called alike: each takes a shard
    that nobody has, and all return when the last one is there. A shard's numbers are the same whoever makes
    it, and whether the work was interrupted or not. In memory are the table and one shard.

    Args:
        columns: a table as `image_lists` makes them, with what the model reads of each picture.
        views, parts: of the features, as in `ReIDModel.extract`.
        skip_bad: as there.
        file_format: ``npy`` or ``npz``.
        shard_size: pictures of a shard.

    Raises:
        UserError: if the folder holds features of other weights, pictures or settings, or other files of
            these names, if it cannot be written, a picture cannot be read, or a column is missing; and for a
            method whose features depend on the batch.
    """
    if model.model.batch_dependent:
        raise UserError(
            f"{model.method}: a feature depends on the pictures that it is computed with, so files of it"
            " cannot be searched",
            "evaluate whole protocols (tools/train_net.py --eval-only)",
        )
    table = csv_text(columns)
    parts = model.part_names(views, parts)
    labels = column_arguments(model.method, model.model.test_labels, columns)
    facts = _facts(model, parts, len(columns["path"]), table)
    features = FeatureSet(folder, facts | {"format": file_format, "shard_size": shard_size})
    try:
        _begin(features, table, model)
        before, start = _rows_there(features), time.perf_counter()
        if before:
            logger.info("%d of %d pictures are there already", before, len(features))
        for number in features.claimed():
            rows = features.rows(number)
            paths, own = columns["path"][rows], {name: values[rows] for name, values in labels.items()}
            features.write_shard(number, model.extract(paths, skip_bad=skip_bad, parts=parts, **own), columns)
            there = _rows_there(features)
            rate = max(1, there - before) / (time.perf_counter() - start)
            done, left = f"{there} of {len(features)} pictures", (len(features) - there) / rate / 60
            logger.info("Shard %d written; %s: %.0f images/s, %.1f min left", number, done, rate, left)
    except OSError as error:
        raise UserError(
            f"cannot write features in {folder}: {error.strerror}; finished shards are kept",
            "mend it and run the same command again",
        ) from error
    return features


def _facts(model: ReIDModel, parts: list[str], count: int, table: bytes) -> dict[str, Any]:
    return {
        "checkpoint": describe_checkpoint(model.cfg.MODEL.WEIGHTS),
        "method": model.method,
        "parts": parts,
        "images": count,
        "width": model.feature_width(parts),
        "images_sha256": hashlib.sha256(table).hexdigest(),
        "config": yaml.safe_load(model.cfg.dump()),
    }


def _rows_there(features: FeatureSet) -> int:
    missing = (features.rows(number) for number in features.missing)
    return len(features) - sum(rows.stop - rows.start for rows in missing)


def _begin(features: FeatureSet, table: bytes, model: ReIDModel) -> None:
    """Begin the folder, or make sure that what it holds was begun with the same facts."""
    features.folder.mkdir(parents=True, exist_ok=True)
    path = features.folder / FACTS
    with locked(features.folder / LOCK, wait=True):
        if path.is_file():
            _check_same(features, read_facts(path), model)
        elif foreign := [*features.folder.glob(IMAGES), *features.folder.glob("features_*.np[yz]")]:
            raise UserError(
                f"{foreign[0]} is there, but no {FACTS} that says what it is", "choose another output folder"
            )
        write_json(path, features.facts)  # first, so that all that follows is known as ours
        with atomic_write(features.folder / IMAGES) as file:
            file.write(table)


def _check_same(features: FeatureSet, earlier: dict[str, Any], model: ReIDModel) -> None:
    facts, different = features.facts, []
    if earlier["checkpoint"]["sha256"] != facts["checkpoint"]["sha256"]:
        different.append(f"weights ({earlier['checkpoint']['path']})")
    if earlier["images_sha256"] != facts["images_sha256"]:
        different.append(f"pictures ({earlier['images']} of them)")
    begun = earlier.get("parts") or model.part_names(earlier["views"])
    if begun != facts["parts"]:
        different.append(f"parts {', '.join(begun)}")
    different += [f"{key} {earlier[key]}" for key in ("format", "shard_size") if earlier[key] != facts[key]]
    different += different_settings(earlier["config"], facts["config"], model.cfg.declared)
    if different:
        raise UserError(
            f"{features.folder} holds features of other {', '.join(different)}",
            "go on with the command that began it, or choose another output folder",
        )
