"""Noise schedules: diffusers' schedulers by name, with Stable Diffusion v1.5's settings."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from fastreid.config import CfgNode
from fastreid.utils.errors import UserError, nearest_name

SCHEDULERS: dict[str, type[SchedulerMixin]] = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "pndm": PNDMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}

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


def build_scheduler(cfg: CfgNode, name: str, **overrides: Any) -> SchedulerMixin:
    """The scheduler `name` with ``TRAIN_STEP`` timesteps, for a UNet that predicts ``PREDICTION_TYPE``.

    Its other settings are `overrides`, then those of ``SCHEDULER_CONFIG.PRETRAINED_PATH`` (a diffusers
    scheduler folder) or, when that is empty, of Stable Diffusion v1.5.

    Raises:
        UserError: for an unknown name or a folder without a readable ``scheduler_config.json``.
    """
    settings = cfg.MODEL.SDMODEL.SCHEDULER_CONFIG
    if name not in SCHEDULERS:
        raise UserError(
            f"MODEL.SDMODEL.SCHEDULER_CONFIG.NAME {name!r} is unknown.{nearest_name(name, list(SCHEDULERS))}"
            f" Known: {', '.join(SCHEDULERS)}"
        )
    config = _read_config(settings.PRETRAINED_PATH) if settings.PRETRAINED_PATH else dict(SD_V1_5)
    config["num_train_timesteps"] = cfg.MODEL.SDMODEL.TRAIN_STEP
    config["prediction_type"] = cfg.MODEL.SDMODEL.PREDICTION_TYPE
    with torch.device("cpu"):  # its numbers are needed also when a model is built for its shapes alone
        return SCHEDULERS[name].from_config(config | overrides)


def _read_config(folder: str) -> dict:
    path = Path(folder) / "scheduler_config.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"MODEL.SDMODEL.SCHEDULER_CONFIG.PRETRAINED_PATH: cannot read {path}"
            f" ({error.__class__.__name__})",
f"see pretrained/README.md"
        ) from error
