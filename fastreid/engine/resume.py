"""The changes of the configuration that a resumed run may have."""

import logging
from typing import Any

import yaml

from fastreid.config import CfgNode, Changes
from fastreid.config.files import flat_keys
from fastreid.structures import DataNames
from fastreid.utils.errors import UserError

logger = logging.getLogger(__name__)

# What a configuration comes to in training. A change of it that no key shows, such as a key's new meaning,
# raises the number, so that no run goes on by other rules than it began with.
TRAINING_RULES = 2


def check_resumed_config(cfg: CfgNode, saved: str, source: str) -> None:
    """Compare `cfg` with the configuration (YAML text) of the run that is resumed.

    Differences are logged. A key of the saved run that no longer exists, or the reverse, is no difference.

    Raises:
        UserError: if a difference would make it another run.
    """
    before, now = flat_keys(yaml.safe_load(saved) or {}), flat_keys(cfg)
    changed = {key: (before[key], now[key]) for key in before if key in now and before[key] != now[key]}
    for key, (old, new) in changed.items():
        logger.info("Resuming with another %s: %r, was %r", key, new, old)
    refused = [key for key in changed if not _may_change(key, cfg)]
    if refused:
        listed = "; ".join(f"{key} {changed[key][1]!r}, was {changed[key][0]!r}" for key in refused)
        raise UserError(
            f"--resume: the config differs from that of {source} in what is trained ({listed})",
            "restore the values, or start a new run in another OUTPUT_DIR",
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
            "go on with that version, or start a new run in another OUTPUT_DIR",
        )


def check_resumed_names(names: DataNames, saved: dict[str, Any] | None, source: str) -> None:
    """Compare the data's names with those of the run that is resumed: labels must mean the same.

    Raises:
        UserError: if identities, cameras or views differ; a file from before there were names passes.
    """
    before = DataNames.from_dict(saved) if saved else names
    changed = [field for field in names._fields if getattr(names, field) != getattr(before, field)]
    if changed:
        raise UserError(
            f"--resume: the training data has other {' and '.join(changed)} than that of {source}",
            "restore the data, or start a new run in another OUTPUT_DIR",
        )


def _may_change(name: str, cfg: CfgNode) -> bool:
    key = cfg.declared[name]
    return not key.changes & Changes.TRAINING or (key.resumable is not None and key.resumable(cfg))
