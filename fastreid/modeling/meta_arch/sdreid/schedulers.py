"""Noise schedules: diffusers' schedulers by name, with Stable Diffusion v1.5's settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import SchedulerMixin

from fastreid.config import CfgNode
from fastreid.modeling.meta_arch.sdreid.assets import SCHEDULER, read_folder
from fastreid.modeling.meta_arch.sdreid.scheduler_names import DIFFUSION_SCHEDULER_REGISTRY
from fastreid.modeling.meta_arch.sdreid.unet_weights import AGAIN
from fastreid.utils.errors import UserError

SD_V1_5 = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def schedule_settings(cfg: CfgNode) -> dict[str, Any]:
    """Return the settings of diffusers' schedulers that the configuration asks for.

    They are those of ``SCHEDULER_CONFIG.PRETRAINED_PATH`` (a diffusers scheduler folder) or, when that is
    empty, of Stable Diffusion v1.5, with ``TRAIN_STEP`` timesteps for a UNet that predicts
    ``PREDICTION_TYPE``.

    Raises:
        UserError: for a folder without a readable ``scheduler_config.json``.
    """
    settings = cfg.MODEL.SDMODEL
    folder = settings.SCHEDULER_CONFIG.PRETRAINED_PATH
    config = read_folder(SCHEDULER, folder, "scheduler_config.json") if folder else SD_V1_5
    return config | {"num_train_timesteps": settings.TRAIN_STEP, "prediction_type": settings.PREDICTION_TYPE}


def build_scheduler(name: str, settings: dict[str, Any]) -> SchedulerMixin:
    """Return the scheduler of that name with diffusers' settings.

    Raises:
        UserError: for an unknown name, or settings of which no schedule of noise comes.
    """
    kind = DIFFUSION_SCHEDULER_REGISTRY.get(name)
    with schedule_named(), torch.device("cpu"):  # its numbers are needed also by a model without any
        scheduler = kind.from_config(settings)
        kept = scheduler.alphas_cumprod
        if not (torch.isfinite(kept).all() and kept.min() >= 0 and kept.max() < 1):
            raise ValueError("its betas leave shares of the signal that are not from 0 to below 1")
    return scheduler


@contextmanager
def schedule_named() -> Iterator[None]:
    """Turn the failure of the block to make a schedule of its settings, whatever it is, into a UserError."""
    try:
        yield
    except Exception as error:  # diffusers and torch raise what they come upon
        reason = " ".join(str(error).split())[:200]
        problem = f"{SCHEDULER}: its scheduler_config.json gives no schedule of noise ({reason})"
        raise UserError(problem, AGAIN) from error
