"""Which pictures to extract features of, as a table: columns by name, a row for each picture."""

import os
from pathlib import Path
from typing import Any, TypeAlias

from fastreid.config import CfgNode
from fastreid.data.bad_images import check_image_files
from fastreid.data.datasets import Sample, open_dataset
from fastreid.data.datasets.files import scan_images
from fastreid.utils.errors import UserError

Columns: TypeAlias = dict[str, list[Any]]  # "path" str always; "pid", "camid", "viewid" int and "split" str

SPLITS = ("train", "query", "gallery")


def list_folder(folder: str) -> Columns:
    """All image files below `folder`, sorted: ``{"path": […]}``.

    Raises:
        UserError: if it cannot be read or holds no image.
    """
    paths = scan_images(folder)
    if not paths:
        raise UserError(f"no .jpg, .jpeg, .png or .bmp files in {folder} or the folders below it")
    return {"path": paths}


def list_file(path: str) -> Columns:
    """The pictures that a text file lists, one path a line, blank lines left out: ``{"path": […]}``.

    Raises:
        UserError: if it cannot be read or lists nothing.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise UserError(f"list of pictures {path} cannot be read: {error.strerror}") from error
    paths = [line.strip() for line in lines if line.strip()]
    if not paths:
        raise UserError(f"list of pictures {path} is empty: expected the path of a picture in each line")
    return {"path": paths}


def list_dataset(name: str, cfg: CfgNode, split: str | None = None) -> Columns:
    """The images of a registered dataset, each path once, with pid, camid, viewid and split.

    Args:
        name: registry name, such as ``CARGO_AG``.
        cfg: DATASETS.ROOT and DATASETS.CSV are read.
        split: train, query or gallery; None: all of them. An image of several has their names joined
            with ``+``, as ``query+gallery``.

    Raises:
        UserError: for an unknown dataset, or one whose files are not there.
    """
    dataset = open_dataset(name, cfg.DATASETS.ROOT, cfg.DATASETS.CSV)
    samples: dict[str, Sample] = {}
    splits: dict[str, list[str]] = {}
    for part in (split,) if split else SPLITS:
        for sample in getattr(dataset, part):
            samples.setdefault(sample.path, sample)
            splits.setdefault(sample.path, []).append(part)
    return {
        "path": list(samples),
        "pid": [sample.pid for sample in samples.values()],
        "camid": [sample.camid for sample in samples.values()],
        "viewid": [sample.viewid for sample in samples.values()],
        "split": ["+".join(parts) for parts in splits.values()],
    }


def list_pictures(places: list[str]) -> list[str]:
    """Files and, of folders, all image files below them, in this order.

    Raises:
        UserError: for a place that does not exist, and missing or empty files.
    """
    paths: list[str] = []
    for place in places:
        paths += list_folder(place)["path"] if os.path.isdir(place) else [place]
    check_image_files(paths, "the query", may_skip=False)
    return paths
