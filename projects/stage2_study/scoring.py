"""The scores of a row on held-out and test identities, and its file."""

import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from fastreid.evaluation.evaluator import ReidEvaluator, protocol_features
from fastreid.utils.documents import load_json
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, write_json
from projects.stage2_study.encoders import Encoder
from projects.stage2_study.joining import Ways

Scores = dict[str, dict[str, dict[str, float]]]  # split -> way -> protocol -> mAP
PERSONS = "persons"
DAMAGED = OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, BadZipFile, zlib.error


@dataclass(frozen=True)
class Trial:
    """A row of one encoder.

    Attributes:
        layout, seed, identities: of the encoder.
        setting, retrieval: names of the row.
        mAP: by split (``held out``, ``test``), way to join and protocol, in percent.
        diagnostics: see `diagnostics.diagnose`; and ``parameters``, those that were trained.
    """

    layout: str
    seed: int
    identities: int
    setting: str
    retrieval: str
    mAP: Scores
    diagnostics: dict[str, float]

    @property
    def row(self) -> tuple[str, str]:
        return self.setting, self.retrieval


def score(encoder: Encoder, ways: Ways) -> tuple[Scores, dict[str, np.ndarray]]:
    """Score every way on every protocol.

    Returns:
        The mAP, and for the test protocols the average precision of each query (Q,) by ``protocol/way``, and
        whom the queries show by ``protocol/persons``.
    """
    evaluator = ReidEvaluator(encoder.config("base_stage2"))
    scores: Scores = {split: {way: {} for way in ways} for split in encoder.splits}
    queries: dict[str, np.ndarray] = {}
    for split, protocols in encoder.splits.items():
        for way, features in ways.items():
            for protocol, *parts in protocol_features(features, encoder.samples, protocols):
                evaluation = evaluator.evaluate(*parts, protocol.query, protocol.gallery)
                scores[split][way][protocol.name] = evaluation.metrics["mAP"]
                if split == "test":
                    persons = np.array([sample.pid for sample in protocol.query], np.int64)
                    queries[f"{protocol.name}/{PERSONS}"] = persons
                    queries[f"{protocol.name}/{way}"] = evaluation.scores.ap.astype(np.float32)
    return scores, queries


def save_trial(path: Path, trial: Trial, queries: dict[str, np.ndarray]) -> None:
    """Write a trial, and the scores of its queries beside it; a trial that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path.with_suffix(".npz"), "wb") as file:
        np.savez_compressed(file, **queries)
    write_json(path, asdict(trial))


def check_trials(output: Path, identities: int) -> None:
    """Check that the trials below `output`, if any, are of this study and of as many training identities.

    Raises:
        UserError: if not.
    """
    others = {trial.identities for trial, _ in read_trials(output)} - {identities}
    if others:
        found = ", ".join(map(str, sorted(others)))
        raise UserError(
            f"{output} has trials with {found} training identities, not {identities}",
            "choose another --output",
        )


def read_trials(output: Path) -> list[tuple[Trial, dict[str, np.ndarray]]]:
    """Return all trials below `output`, with the scores of their queries.

    Raises:
        UserError: for a damaged one, and one of the study as it was before it wrote these.
    """
    return [_read_trial(path) for path in sorted(output.glob("*/*/results/*.json"))]


def _read_trial(path: Path) -> tuple[Trial, dict[str, np.ndarray]]:
    again = f"remove {path}: the same command makes it again"
    if not path.with_suffix(".npz").exists():
        raise UserError(f"{path} has no scores of queries beside it", f"{again}, or choose another --output")
    try:
        trial = Trial(**load_json(path))
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
            queries = dict(file)
        if not trial.mAP["held out"].keys() == trial.mAP["test"].keys() != set():
            raise ValueError("no ways to join")
        for way, scores in trial.mAP["test"].items():
            for protocol, score in scores.items():
                if len(queries[f"{protocol}/{way}"]) != len(queries[f"{protocol}/{PERSONS}"]):
                    raise ValueError(f"{protocol}: persons and scores differ in number")
                float(score)
    except DAMAGED as error:
        raise UserError(f"{path}, or its .npz, is damaged: {error}", again) from error
    return trial, queries
