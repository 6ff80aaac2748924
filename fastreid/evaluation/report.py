"""The traces of an evaluation: a table in the log, a file of results and one of every query's scores."""

import itertools
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import yaml
from tabulate import tabulate

from fastreid.config import CfgNode
from fastreid.evaluation.equal_terms import ViewGap
from fastreid.evaluation.rank import QueryScores
from fastreid.structures import Results
from fastreid.utils.documents import load_json
from fastreid.utils.env import code_version
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, sha256_of, write_json

logger = logging.getLogger(__name__)

RESULTS = "results.json"  # of a training
EVALUATED = "results.*.json"  # of a checkpoint


def log_table(results: Results, sizes: dict[str, dict[str, int]]) -> None:
    """Log one row per protocol: its name, queries, those with a match, gallery, and metrics in percent."""
    rows = [{"protocol": name, **sizes[name], **metrics} for name, metrics in results.items()]
    table = tabulate(rows, headers="keys", tablefmt="github", floatfmt=".2f")
    logger.info("Evaluation results (percent):\n%s", table)


def log_view_gap(gap: ViewGap, distractors: int) -> None:
    """Log one line: the means within a view and across views, and the gap between them."""
    terms = f"1 match, {distractors} distractors"
    means = f"within a view {gap.within:.1f}, across views {gap.across:.1f}, gap {gap.gap:.1f} mAP"
    logger.info("View gap at equal terms (%s): %s", terms, means)


def write_results(
    cfg: CfgNode,
    results: Results,
    sizes: dict[str, dict[str, int]],
    checkpoint: str | None,
    gap: ViewGap | None,
) -> Path:
    """Write a file of results with sizes, checkpoint and hash, code version, config; return its path.

    Those of a training are ``OUTPUT_DIR/results.json``. Those of a checkpoint have a file of their own, such
    as ``results.model_best.CARGO_AG.json``; its name gets a number where that is of another checkpoint or
    configuration.
    A view gap is written as ``view_gap``, in mAP at equal terms; without one the entry is missing.

    Args:
        checkpoint: None: of a model that trains.
    """
    content: dict[str, Any] = {
        "results": {name: sizes[name] | metrics for name, metrics in results.items()},
        "checkpoint": describe_checkpoint(checkpoint),
        "version": code_version(),
        "config": yaml.safe_load(cfg.dump()),
    }
    if gap is not None:
        content["view_gap"] = gap._asdict()
    path = Path(cfg.OUTPUT_DIR) / RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint is not None:
        stem = f"{path.stem}.{_words(Path(checkpoint).stem or 'model')}.{_words('+'.join(results))}"
        numbered = (path.with_name(f"{stem}.{number}.json") for number in itertools.count(2))
        names = itertools.chain([path.with_name(f"{stem}.json")], numbered)
        path = next(name for name in names if _is_free(name, content))
    write_json(path, content)
    return path


def _words(text: str) -> str:
    """Make `text` a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_+-]+", "_", text)[:100]


def _is_free(path: Path, content: dict[str, Any]) -> bool:
    """Tell whether the file is not there, or is of the same checkpoint, protocols and configuration."""
    if not os.path.lexists(path):
        return True
    try:
        there = _read_results(path)
    except UserError:
        return False
    same = all(there.get(key) == content[key] for key in ("checkpoint", "config"))
    return same and there["results"].keys() == content["results"].keys()


def scores_path(results: Path) -> Path:
    """Return where the scores of every query stand beside a file of results."""
    return results.with_name(results.name.replace("results", "query_scores", 1)).with_suffix(".npz")


def read_results(place: str | Path, metrics: Sequence[str] = ()) -> dict[str, Any]:
    """Read what :func:`write_results` wrote.

    Args:
        place: the file, or the OUTPUT_DIR: for a training's its last results, for another the newest.
        metrics: what every protocol must have, such as ``mAP``.

    Raises:
        UserError: if there is no readable file, or a metric is missing in it.
    """
    path = Path(place)
    if not path.is_file():
        path = path / RESULTS
        if not path.exists():
            path = max(path.parent.glob(EVALUATED), key=os.path.getmtime, default=path)
    return _read_results(path, metrics)


def _read_results(path: Path, metrics: Sequence[str] = ()) -> dict[str, Any]:
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"no readable results in {path}", "name the OUTPUT_DIR of an evaluation") from error
    results = content.get("results") if isinstance(content, dict) else None
    if not results or not isinstance(results, dict):
        raise UserError(f'{path} has no "results" of protocols', "run the evaluation again")
    for protocol, values in results.items():
        found = values if isinstance(values, dict) else {}
        if missing := [name for name in metrics if not isinstance(found.get(name), int | float)]:
            raise UserError(f"{path}: {protocol} has no {', '.join(missing)}", "run the evaluation again")
    return content


class ScoredQueries(NamedTuple):
    """The queries of a protocol that have a match, in the order of its query images."""

    persons: np.ndarray
    """(Q,) int64: the persons that they show."""
    ap: np.ndarray
    """(Q,) float64: average precision."""
    first_hit: np.ndarray
    """(Q,) int64: the rank of the first true match, from 1."""


def write_query_scores(path: Path, scores: dict[str, tuple[np.ndarray, QueryScores]]) -> None:
    """Write a file ``query_scores.npz``: what `ScoredQueries` has, as ``protocol/field``.

    Args:
        scores: the persons (Q,) of all queries and their scores, by protocol.
    """
    arrays = {}
    for protocol, (persons, found) in scores.items():
        scored = found.first_hit > 0
        for field, values in zip(ScoredQueries._fields, (persons, found.ap, found.first_hit), strict=True):
            arrays[f"{protocol}/{field}"] = values[scored]
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)


def read_query_scores(output_dir: str | Path, protocols: Sequence[str]) -> dict[str, ScoredQueries]:
    """Read what :func:`write_query_scores` wrote of these protocols when the model trained.

    Raises:
        UserError: if the folder has no such file, or it lacks a protocol.
    """
    path = scores_path(Path(output_dir) / RESULTS)
    try:
        with np.load(path) as arrays:
            fields = ScoredQueries._fields
            return {name: ScoredQueries(*(arrays[f"{name}/{f}"] for f in fields)) for name in protocols}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        problem = f"no readable scores of {', '.join(protocols)} in {path}"
        raise UserError(problem, "evaluate the model again, with this version") from error


def describe_checkpoint(path: str | None) -> dict[str, str] | None:
    """Return ``{"path", "sha256"}`` of the file; None when there is no such file."""
    if not path or not Path(path).is_file():
        return None
    return {"path": str(path), "sha256": sha256_of(path)}
