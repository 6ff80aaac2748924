"""The rules by which a run goes on from a checkpoint: what may have changed, and what may not."""

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastreid.config import CfgNode, Changes
from fastreid.config.files import flat_keys, stored_config
from fastreid.modeling import MetaArch
from fastreid.modeling.weights import check_method
from fastreid.structures import DataNames
from fastreid.utils.checkpoint import load_checkpoint, without_module_prefix
from fastreid.utils.errors import UserError
from fastreid.utils.memory import is_allocation_failure

logger = logging.getLogger(__name__)

NEW_RUN = "resume an earlier checkpoint, or start a new run"

# What a configuration comes to in training. A change of it that no key shows, such as a key's new meaning,
# raises the number, so that no run goes on by other rules than it began with.
TRAINING_RULES = 2

PARTS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("optimizer", "scheduler", "grad_scaler", "events", "hooks"), dict),
    **dict.fromkeys(("skipped", "epoch", "iteration", "iters_per_epoch"), int),
    "best_metric": (float, type(None)),
    "rng": list,
}
"""What a checkpoint holds beside the model's weights, and of which type."""


def check_resumed(
    cfg: CfgNode, model: MetaArch, iters_per_epoch: int, checkpoint: dict[str, Any], source: str
) -> None:
    """Check that a checkpoint is of the run that `cfg` and `model` describe, up to what may change.

    Args:
        model: built from `cfg` with the names of the training data; its values do not matter.
        source: the file, for messages.

    Raises:
        UserError: if it is not.
    """
    meta = checkpoint["meta"]
    check_method(meta, model, "resume", source)
    _check_parts(checkpoint, source)
    check_resumed_rules(meta.get("rules", 1), source)  # none: from before they had a number
    check_resumed_config(cfg, meta["config"], source)
    check_resumed_names(model.names, meta.get("names"), source)
    if checkpoint["iters_per_epoch"] != iters_per_epoch:
        raise UserError(
            f"{source} has {checkpoint['iters_per_epoch']} iterations an epoch, now there are"
            f" {iters_per_epoch}: the training data has changed",
            "restore it or start a new run",
        )


def _check_parts(checkpoint: dict[str, Any], source: str) -> None:
    """Check that the parts of a checkpoint are there and of their types, and its counts possible."""
    absent = [name for name in PARTS if name not in checkpoint]
    absent += [] if "config" in checkpoint["meta"] else ["meta.config"]
    if absent:
        problem = f"{source} lacks {', '.join(absent)}: not a checkpoint to resume"
        raise UserError(problem, "name it in MODEL.WEIGHTS to start from its weights")
    for name, kind in PARTS.items():
        value = checkpoint[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{source}: its {name} is a {type(value).__name__}", NEW_RUN)
    epoch, length = checkpoint["epoch"], checkpoint["iters_per_epoch"]
    done, best, skipped = (checkpoint[name] for name in ("iteration", "best_metric", "skipped"))
    if not 0 <= epoch * length <= done <= (epoch + 1) * length < 2**63 or not 0 <= skipped <= done:
        problem = f"{source}: {epoch} epochs of {length} iterations, {done} in all, {skipped} skipped"
        raise UserError(f"{problem}: not what training counts", NEW_RUN)
    if best is not None and not math.isfinite(best):
        raise UserError(f"{source}: its best_metric is {best}", NEW_RUN)


@contextmanager
def restored(source: str) -> Iterator[None]:
    """Turn the failure of the block to restore a checkpoint's state, whatever it is, into a UserError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        if is_allocation_failure(error):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"{source} cannot be resumed, its state does not fit ({reason})", NEW_RUN) from error


def check_resumed_start(cfg: CfgNode, model: MetaArch, state: dict[str, Tensor], source: str) -> None:
    """Check that a method that starts from another's checkpoint has MODEL.WEIGHTS in what it does not train.

    A file that is no longer there is not missed.

    Raises:
        UserError: if the run has started from other weights than the file has now.
    """
    weights = cfg.MODEL.WEIGHTS
    if not model.starts_from or not weights or not Path(weights).exists():
        return
    start = without_module_prefix(load_checkpoint(weights)["model"])
    excluded = model.parameter_rules().training_only
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    shared = [name for name in frozen if name in start and name in state and not name.startswith(excluded)]
    changed = [name for name in shared if not torch.equal(start[name], state[name])]
    if changed:
        raise UserError(
            f"--resume: {source} has started from other weights than {weights} has now: {len(changed)} of"
            f" {len(shared)} parameters that do not train differ, such as {changed[0]}",
            "run without --resume to start from that file, or name the one it has started from in"
            " MODEL.WEIGHTS",
        )


def check_resumed_config(cfg: CfgNode, saved: str, source: str) -> None:
    """Compare `cfg` with the configuration (YAML text) of the run that is resumed.

    Differences are logged. A key of the saved run that no longer exists, or the reverse, is no difference.

    Raises:
        UserError: if a difference would make it another run.
    """
    before, now = flat_keys(stored_config({"config": saved}, source)), flat_keys(cfg)
    changed = {key: (before[key], now[key]) for key in before if key in now and before[key] != now[key]}
    for key, (old, new) in changed.items():
        logger.info("Resuming with another %s: %r, was %r", key, new, old)
    refused = [key for key in changed if not _may_change(key, cfg)]
    if refused:
        listed = "; ".join(f"{key} {changed[key][1]!r}, was {changed[key][0]!r}" for key in refused)
        raise UserError(
            f"--resume: the config differs from that of {source} in what is trained ({listed})",
            "restore the values, or start a new run, without --resume or in another OUTPUT_DIR",
        )


def check_resumed_rules(saved: int, source: str) -> None:
    """Check that the run that is resumed trained by the same rules, see `TRAINING_RULES`.

    Raises:
        UserError: if it did not.
    """
    if saved != TRAINING_RULES:
        raise UserError(
            f"--resume: {source} was written by another version, which by the same config trains otherwise"
            " (clipping, schedule, weight decay, augmentation)",
            "go on with that version, or start a new run, without --resume or in another OUTPUT_DIR",
        )


def check_resumed_names(names: DataNames, saved: dict[str, Any] | None, source: str) -> None:
    """Compare the data's names with those of the run that is resumed: labels must mean the same.

    Raises:
        UserError: if identities, cameras or views differ; a file from before there were names passes.
    """
    now, before = _without_zeros(names), _without_zeros(DataNames.from_dict(saved) if saved else names)
    changed = [field for field in names._fields if getattr(now, field) != getattr(before, field)]
    if changed:
        raise UserError(
            f"--resume: the training data has other {' and '.join(changed)} than that of {source}",
            "restore the data, or start a new run, without --resume or in another OUTPUT_DIR",
        )


def _without_zeros(names: DataNames) -> DataNames:
    """Return names without leading zeros, which earlier checkpoints lack; no two differ in these alone."""

    def plain(name: str) -> str:
        return re.sub(r"(^|/)0+(?=[0-9]+$)", r"\1", name)

    cameras = {camid: plain(name) for camid, name in names.cameras.items()}
    return DataNames(tuple(map(plain, names.identities)), cameras, names.views)


def _may_change(name: str, cfg: CfgNode) -> bool:
    key = cfg.declared[name]
    return not key.changes & Changes.TRAINING or (key.resumable is not None and key.resumable(cfg))
