"""The traces of an evaluation: a table in the log, ``results.json`` and ``query_scores.npz``."""

import hashlib
import json
import logging
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
from fastreid.utils.env import code_version
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, write_json

logger = logging.getLogger(__name__)


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
) -> None:
    """Write ``OUTPUT_DIR/results.json``: results with sizes, checkpoint and hash, code version, config.

    A view gap is written as ``view_gap``, in mAP at equal terms; without one the entry is missing.
    """
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "results": {name: sizes[name] | metrics for name, metrics in results.items()},
        "checkpoint": describe_checkpoint(checkpoint),
        "version": code_version(),
        "config": yaml.safe_load(cfg.dump()),
    }
    if gap is not None:
        content["view_gap"] = gap._asdict()
    write_json(Path(cfg.OUTPUT_DIR) / "results.json", content)


def read_results(output_dir: str, metrics: Sequence[str] = ()) -> dict[str, Any]:
    """Read what :func:`write_results` wrote.

    Args:
        metrics: what every protocol must have, such as ``mAP``.

    Raises:
        UserError: if the folder has no readable ``results.json``, or a metric is missing in it.
    """
    path = Path(output_dir) / "results.json"
    try:
        content = json.loads(path.read_text())
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


def write_query_scores(output_dir: str, scores: dict[str, tuple[np.ndarray, QueryScores]]) -> None:
    """Write ``query_scores.npz``: what `ScoredQueries` has, as ``protocol/field``.

    Args:
        scores: the persons (Q,) of all queries and their scores, by protocol.
    """
    arrays = {}
    for protocol, (persons, found) in scores.items():
        scored = found.first_hit > 0
        for field, values in zip(ScoredQueries._fields, (persons, found.ap, found.first_hit), strict=True):
            arrays[f"{protocol}/{field}"] = values[scored]
    with atomic_write(Path(output_dir) / "query_scores.npz") as file:
        np.savez_compressed(file, **arrays)


def read_query_scores(output_dir: str | Path, protocols: Sequence[str]) -> dict[str, ScoredQueries]:
    """Read what :func:`write_query_scores` wrote of these protocols.

    Raises:
        UserError: if the folder has no such file, or it lacks a protocol.
    """
    path = Path(output_dir) / "query_scores.npz"
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
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return {"path": str(path), "sha256": digest.hexdigest()}
