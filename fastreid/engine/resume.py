"""Which changes of the configuration a resumed run may have."""

import logging

import yaml

from fastreid.config import CfgNode
from fastreid.utils.errors import UserError

logger = logging.getLogger(__name__)

# Keys, or groups with a dot at the end, that do not change what is trained.
FREE = (
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "MODEL.ALLOW_PARTIAL_WEIGHTS",
    "MODEL.BACKBONE.PRETRAIN",
    "MODEL.BACKBONE.PRETRAIN_PATH",
    "MODEL.SDMODEL.CACHE_FEATURES",
    "MODEL.SDMODEL.COMPILE",
    "MODEL.SDMODEL.GRADIENT_CHECKPOINTING",
    "MODEL.SDMODEL.FIRST_STAGE_CONFIG.",
    "MODEL.SDMODEL.SCHEDULER_CONFIG.PRETRAINED_PATH",
    "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH",
    "DATASETS.ROOT",
    "DATASETS.CSV",
    "DATASETS.TESTS",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.ON_BAD_IMAGE",  # a run that an unreadable image has stopped may go on without it
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.CHECKPOINT_ITERS",
    "SOLVER.LOG_PERIOD",
    "SOLVER.AMP.",
    "TEST.",
    "OUTPUT_DIR",
    "CUDNN_BENCHMARK",
)


def check_resumed_config(cfg: CfgNode, saved: str, source: str) -> None:
    """Compare `cfg` with the configuration (YAML text) of the run that is resumed.

    Differences are logged. A key of the saved run that no longer exists, or the reverse, is no difference.

    Raises:
        UserError: if a difference would make it another run.
    """
    before = _flat(yaml.safe_load(saved) or {})
    now = _flat(yaml.safe_load(cfg.dump()))
    changed = {key: (before[key], now[key]) for key in before if key in now and before[key] != now[key]}
    for key, (old, new) in changed.items():
        logger.info("Resuming with another %s: %r, was %r", key, new, old)
    refused = [key for key in changed if not _is_free(key, cfg)]
    if refused:
        listed = "; ".join(f"{key} {changed[key][1]!r}, was {changed[key][0]!r}" for key in refused)
        raise UserError(
            f"--resume: the config differs from that of {source} in what is trained ({listed})",
f"restore the"
            f" values, or start a new run in another OUTPUT_DIR"
        )


def _is_free(key: str, cfg: CfgNode) -> bool:
    if key == "SOLVER.MAX_EPOCH":  # stretches the cosine, but only lengthens the other schedules
        return cfg.SOLVER.SCHED != "CosineAnnealingLR"
    return any(key.startswith(free) if free.endswith(".") else key == free for free in FREE)


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
