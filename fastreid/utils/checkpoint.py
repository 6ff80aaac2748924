"""Checkpoint files: written so that none is ever lost, read so that nothing is silently missing."""

import logging
import os
import pickle
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from tabulate import tabulate
from torch import nn

from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write

logger = logging.getLogger(__name__)

LAST_CHECKPOINT = "last_checkpoint"
ZIP_MAGIC = b"PK\x03\x04"

Purpose = Literal["train", "eval", "resume"]


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code that it may hold.

    Returns:
        At least ``{"model": state_dict, "meta": {…}}``. A file that is a bare state_dict comes back in
        that form with an empty ``meta``.

    Raises:
        UserError: if the file is missing, empty, truncated, no checkpoint, or needs code to be run.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder, not a file" if path.is_dir() else "not found"
        raise UserError(f"checkpoint {path} {kind}; give an existing .pth file (MODEL.WEIGHTS)")
    if path.stat().st_size == 0:
        raise UserError(
            f"checkpoint {path} is empty (0 bytes); use another checkpoint of the run or copy it again"
        )
    content = _read(path)
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {path} holds a {type(content).__name__}, not a dict with model weights")
    if not isinstance(content.get("model"), dict):
        content = {"model": content}
    state = content["model"]
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(
            f"checkpoint {path} holds no model weights: expected a state_dict, or one under 'model'"
        )
    return {"meta": {}, **content}


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        magic = file.read(4)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd files, which are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if magic == ZIP_MAGIC or magic[:1] == b"\x80":
            raise UserError(
                f"checkpoint {path} holds Python objects beside tensors and plain values, and loading them"
                f" could run code: refused. Save its state_dict alone, from a source that you trust"
            ) from error
        raise UserError(
            f"checkpoint {path} is not a PyTorch file; give a .pth file written by torch.save"
        ) from error
    except Exception as error:
        problem = "is truncated or damaged" if magic == ZIP_MAGIC else "is not a readable PyTorch file"
        raise UserError(
            f"checkpoint {path} {problem}; use another checkpoint of the run or copy it again"
        ) from error


class Checkpointer:
    """Writes and finds the checkpoints of one output folder.

    Every file is complete when it appears under its name: an interrupted or failed writing leaves the
    earlier file of that name and `last_checkpoint` as they were.
    """

    def __init__(self, output_dir: str | os.PathLike) -> None:
        self.folder = Path(output_dir)

    def save(self, name: str, state: dict[str, Any], mark_last: bool = True) -> Path:
        """Write `state` as file `name`; with `mark_last` it becomes what a resumed run starts from.

        Raises:
            UserError: if the file cannot be written (disk full, folder read-only).
        """
        path = self.folder / name
        try:
            with atomic_write(path) as file:
                torch.save(state, file)
            if mark_last:
                with atomic_write(self.folder / LAST_CHECKPOINT, "w") as file:
                    file.write(name + "\n")
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"cannot write checkpoint {path}: {reason}. Earlier checkpoints are intact: free space or fix"
                f" the permissions of OUTPUT_DIR, then go on with --resume"
            ) from error
        logger.info("Checkpoint written: %s", path)
        return path

    def remove_partial_files(self) -> None:
        """Remove what killed processes left half written. No other process may be writing here."""
        for path in self.folder.glob(".model_*.pth.*.tmp"):
            path.unlink()

    def candidates(self) -> list[Path]:
        """Checkpoints of the folder, what `last_checkpoint` names first, then the newest first."""
        found = sorted(
            self.folder.glob("model_*.pth"), key=lambda path: path.stat().st_mtime_ns, reverse=True
        )
        marker = self.folder / LAST_CHECKPOINT
        if marker.is_file():
            last = self.folder / marker.read_text(encoding="utf-8").strip()
            found = [last, *(path for path in found if path != last)]
        return found

    def load_last(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that can be read; None when the folder has none.

        An unreadable one is named in a warning and the one before it is taken.

        Raises:
            UserError: if there are checkpoints and none can be read.
        """
        candidates = self.candidates()
        for path in candidates:
            try:
                return path, load_checkpoint(path)
            except UserError as error:
                logger.warning("%s. Trying the one before it", error)
        if candidates:
            raise UserError(f"no checkpoint in {self.folder} can be read; start again without --resume")
        return None


@dataclass
class LoadReport:
    """Names of parameters and buffers, by what became of them."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    def table(self) -> str:
        rows = [
            (kind, len(names), _some(names))
            for kind, names in vars(self).items()
            if names or kind in ("loaded", "missing")
        ]
        return tabulate(rows, headers=("parameters", "number", "names"), tablefmt="simple")


def load_model_weights(
    model: nn.Module,
    state_dict: dict[str, torch.Tensor],
    purpose: Purpose,
    allow_partial: bool = False,
    source: str = "checkpoint",
) -> LoadReport:
    """Copy `state_dict` into `model` and report what fitted.

    What may lack or have another shape depends on the purpose: ``train`` may lack what
    `model.trainable_from` and `model.not_for_eval` (classifiers) name, ``eval`` the latter, ``resume``
    nothing. Classifiers of another number of identities are left out with a message.

    Args:
        allow_partial: go on in spite of missing or mismatched parameters (not for ``resume``).
        source: the file, for messages.

    Raises:
        UserError: if a parameter that the purpose depends on is missing or has another shape; the model
            is unchanged then.
    """
    given = without_module_prefix(state_dict)
    own = model.state_dict()
    report = check_model_weights(model, given, purpose, allow_partial, source)
    model.load_state_dict({name: given[name] for name in report.loaded}, strict=False)
    logger.info("Weights from %s\n%s", source, report.table())
    for name in report.mismatched:
        if name.startswith(tuple(model.not_for_eval)):
            sizes = tuple(given[name].shape), tuple(own[name].shape)
            logger.info("%s: not loaded, trained for another number of identities %s, here %s", name, *sizes)
    return report


def check_model_weights(
    model: nn.Module,
    state_dict: dict[str, torch.Tensor],
    purpose: Purpose,
    allow_partial: bool = False,
    source: str = "checkpoint",
) -> LoadReport:
    """What :func:`load_model_weights` would report; raises as it does, and loads nothing.

    Only names and shapes are read: the model may be on the ``meta`` device.
    """
    given = without_module_prefix(state_dict)
    own = model.state_dict()
    report = _compare(own, given)
    if not report.loaded:
        raise UserError(
            f"{source} has no parameter in common with this model: give a checkpoint of this architecture"
        )
    classifiers = () if purpose == "resume" else tuple(model.not_for_eval)
    optional = classifiers + (tuple(model.trainable_from) if purpose == "train" else ())
    missing = [
        n for n in report.missing if not n.startswith(optional) and not n.endswith("num_batches_tracked")
    ]
    mismatched = [name for name in report.mismatched if not name.startswith(classifiers)]
    if missing or mismatched:
        shapes = [f"{n} {tuple(given[n].shape)} instead of {tuple(own[n].shape)}" for n in mismatched]
        _refuse_or_warn(purpose, allow_partial, source, missing, shapes, len(own))
    return report


def _compare(own: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> LoadReport:
    report = LoadReport(unexpected=[name for name in given if name not in own])
    for name, value in own.items():
        if name not in given:
            report.missing.append(name)
        elif given[name].shape != value.shape:
            report.mismatched.append(name)
        else:
            report.loaded.append(name)
    return report


def _refuse_or_warn(
    purpose: Purpose, allow_partial: bool, source: str, missing: list[str], shapes: list[str], total: int
) -> None:
    parts = []
    if missing:
        parts.append(f"lacks {len(missing)} of {total} parameters ({_some(missing)})")
    if shapes:
        parts.append(f"has {len(shapes)} parameters of another shape ({_some(shapes)})")
    problem = f"{source} {' and '.join(parts)}"
    if purpose == "resume":
        raise UserError(
            f"{problem}: this is not the run to resume; restore its config and data, or start afresh"
        )
    if not allow_partial:
        raise UserError(
            f"{problem}: give a checkpoint of this architecture, input size and number of views, or set"
            f" MODEL.ALLOW_PARTIAL_WEIGHTS True to go on with what fits"
        )
    logger.warning("%s: going on with random values for them (MODEL.ALLOW_PARTIAL_WEIGHTS)", problem)


def check_stage(meta: dict[str, Any], model: nn.Module, purpose: Purpose, source: str) -> None:
    """Explain a checkpoint of the wrong stage. Files without ``meta.stage`` pass.

    Raises:
        UserError: if a file of one stage is evaluated or resumed as the other, or Stage 1 is to start
            from a Stage-2 file.
    """
    found, wanted = meta.get("stage"), model.stage
    if found in (None, wanted) or (purpose == "train" and (found, wanted) == (1, 2)):
        return
    doing = {"train": "trains", "eval": "evaluates", "resume": "resumes"}[purpose]
    raise UserError(
        f"{source} is a Stage-{found} checkpoint, but the config {doing} Stage {wanted}: use the"
        f" Stage-{found} config, or name a Stage-{wanted} checkpoint in MODEL.WEIGHTS"
    )


def without_module_prefix(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State dicts of models wrapped for data parallelism have ``module.`` before every name."""
    if all(name.startswith("module.") for name in state_dict):
        return {name.removeprefix("module."): value for name, value in state_dict.items()}
    return state_dict


def _some(names: list[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (f", … ({len(names) - shown} more)" if len(names) > shown else "")
