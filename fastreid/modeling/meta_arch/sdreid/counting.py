"""Counting Stage 2's operations: stand-ins for absent folders, and sampling without numbers."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from fastreid.config import CfgNode
from fastreid.modeling.backbones import feature_width
from fastreid.modeling.meta_arch.sdreid.generator import FeatureGenerator

logger = logging.getLogger(__name__)


@contextmanager
def stand_in_folders(cfg: CfgNode, with_weights: bool) -> Iterator[CfgNode]:
    """Give a mutable copy of `cfg` in which Stable Diffusion v1.5's sizes stand in for absent folders.

    Args:
        with_weights: give the UNet random weights; else its folder serves the ``meta`` device only.
    """
    cfg = cfg.clone()
    cfg.defrost()
    schedule, unet = cfg.MODEL.SDMODEL.SCHEDULER_CONFIG, cfg.MODEL.SDMODEL.UNET_CONFIG
    if not Path(schedule.PRETRAINED_PATH).is_dir():
        schedule.PRETRAINED_PATH = ""
    if Path(unet.PRETRAINED_PATH).is_dir():  # an empty path is the current folder
        yield cfg
        return
    logger.warning(
        "%s does not exist: a UNet of Stable Diffusion v1.5's size stands in", unet.PRETRAINED_PATH
    )
    with tempfile.TemporaryDirectory() as folder:
        # diffusers' other defaults are Stable Diffusion v1.5's.
        with torch.device("cpu" if with_weights else "meta"):
            stand_in = UNet2DConditionModel(cross_attention_dim=feature_width(cfg))
        if with_weights:
            stand_in.save_pretrained(folder)
        else:
            stand_in.save_config(folder)
        del stand_in
        unet.PRETRAINED_PATH = folder
        yield cfg


class _Calls:
    """Calls the network once for each step of a sampler, and does nothing else."""

    def __init__(self, generator: FeatureGenerator) -> None:
        sampler = generator.sampler
        sampler.scheduler.set_timesteps(sampler.steps)
        self.timesteps, self.draws = sampler.scheduler.timesteps, sampler.draws

    def __call__(self, noise: Tensor, predict: Callable[[Tensor, Tensor, bool], Tensor]) -> Tensor:
        latents = noise[0]
        for index, timestep in enumerate(self.timesteps):
            latents = predict(latents, timestep, index == 0)
        return latents


def count_calls(generator: FeatureGenerator) -> None:
    """Let `generator` call its networks alone, and count the latents that pass the UNet."""

    def count(unet: UNet2DConditionModel, args: tuple) -> None:
        generator.counted_latents += len(args[0])

    generator.sampler = _Calls(generator)
    generator.unet.register_forward_pre_hook(count)
