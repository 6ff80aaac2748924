"""The cost of both stages for a configuration."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fastreid.config import CfgNode
from fastreid.engine.trained_model import load_trained_model
from fastreid.modeling import build_meta_model, build_model
from fastreid.utils.amp import amp_dtype
from fastreid.utils.checkpoint import load_checkpoint
from fastreid.utils.complexity import (
    Measurement,
    ParameterCount,
    count_flops,
    count_parameters,
    measure,
    part_names,
)

logger = logging.getLogger(__name__)


class ModelSize(NamedTuple):
    """What holds for a configuration on any machine."""

    parameters: list[ParameterCount]
    """Of each part, then of the whole model."""
    flops: dict[str, int]
    """Of a batch through the model as evaluation runs it: in each part and in ``total``."""
    unet_latents: int
    """Latents that pass the UNet for this batch; 0 in Stage 1."""


class Weights(NamedTuple):
    """The checkpoint of a configuration, as far as it can be used."""

    num_classes: int
    note: str
    """Where the weights come from, in words."""
    loads: bool


def find_weights(cfg: CfgNode) -> Weights:
    """What ``MODEL.WEIGHTS`` holds; weights of the other stage, or none, mean random ones."""
    stage = 2 if _generates(cfg) else 1
    path = cfg.MODEL.WEIGHTS
    if not path or not Path(path).exists():
        reason = f"{path} does not exist" if path else "MODEL.WEIGHTS is empty"
        classes = cfg.MODEL.HEADS.NUM_CLASSES or 1
        return Weights(classes, f"random ({reason}); classifier of {classes} identities", False)
    meta = load_checkpoint(path)["meta"]
    classes = cfg.MODEL.HEADS.NUM_CLASSES or meta.get("num_classes", 1)
    if meta.get("stage", stage) != stage:
        return Weights(classes, f"random ({path} is of the other stage)", False)
    return Weights(classes, path, True)


def model_size(cfg: CfgNode, batch_size: int) -> ModelSize:
    """Parameters and operations of a batch, found without allocating or computing anything."""
    with stand_in_assets(cfg, with_weights=False) as cfg:
        model = _skeleton(cfg)
    parts = part_names(model, opened=("generator",))
    rows: list[int] = []
    if _generates(cfg):
        model.generator.unet.register_forward_pre_hook(lambda unet, args: rows.append(len(args[0])))
    parameters = count_parameters(model, parts)
    # Tensors without numbers that pretend to be the CPU's: `meta` ones do not say what autocast asks.
    with FakeTensorMode(allow_non_fake_inputs=True):
        flops = count_flops(model.to_empty(device="cpu"), _batch(cfg, batch_size), parts=parts)
    return ModelSize(parameters, flops, sum(rows))


def measure_stages(cfg: CfgNode, weights: Weights, batch_size: int, repeats: int) -> dict[str, Measurement]:
    """Time and memory of a batch: ``stage 1`` is the person feature, ``stage 2`` the whole retrieval feature.

    Raises:
        UserError: for weights that do not fit, or a device that is not there.
    """
    with stand_in_assets(cfg, with_weights=True) as cfg:
        model = load_trained_model(cfg) if weights.loads else build_model(cfg).eval()
    batch = _batch(cfg, batch_size)
    amp = amp_dtype(cfg.TEST.AMP, model.device)
    stages = {"stage 1": lambda: model.heads(model.encode(batch["images"]).features)}
    if model.stage == 2:
        stages["stage 2"] = lambda: model(batch)
    with torch.inference_mode(), torch.autocast("cuda", amp, enabled=amp is not None):
        return {name: measure(work, model.device, repeats) for name, work in stages.items()}


@contextmanager
def stand_in_assets(cfg: CfgNode, with_weights: bool) -> Iterator[CfgNode]:
    """A mutable copy of `cfg` in which Stable Diffusion v1.5's sizes stand in for folders that are absent.

    Args:
        with_weights: give the UNet random weights; else its folder serves the ``meta`` device only.
    """
    cfg = cfg.clone()
    cfg.defrost()
    schedule, unet = cfg.MODEL.SDMODEL.SCHEDULER_CONFIG, cfg.MODEL.SDMODEL.UNET_CONFIG
    if not Path(schedule.PRETRAINED_PATH).is_dir():
        schedule.PRETRAINED_PATH = ""
    if not _generates(cfg) or Path(unet.PRETRAINED_PATH).is_dir():  # an empty path is the current folder
        yield cfg
        return
    logger.warning(
        "%s does not exist: a UNet of Stable Diffusion v1.5's sizes stands in", unet.PRETRAINED_PATH
    )
    from diffusers import UNet2DConditionModel

    with tempfile.TemporaryDirectory() as folder:
        # diffusers' other defaults are Stable Diffusion v1.5's.
        with torch.device("cpu" if with_weights else "meta"):
            stand_in = UNet2DConditionModel(cross_attention_dim=cfg.MODEL.BACKBONE.FEAT_DIM)
        if with_weights:
            stand_in.save_pretrained(folder)
        else:
            stand_in.save_config(folder)
        del stand_in
        unet.PRETRAINED_PATH = folder
        yield cfg


def _generates(cfg: CfgNode) -> bool:
    return cfg.MODEL.META_ARCHITECTURE == "SDReIDStage2"


def _skeleton(cfg: CfgNode) -> nn.Module:
    """The model without numbers, in eval mode; its sampler calls the network and does nothing else."""
    model = build_meta_model(cfg).eval()
    if _generates(cfg):
        from fastreid.modeling.meta_arch.sdreid.sampler import Sampler

        class Calls(Sampler):
            def __call__(self, noise: Tensor, predict: Callable[[Tensor, Tensor, bool], Tensor]) -> Tensor:
                latents = noise[0]
                for index, timestep in enumerate(self.scheduler.timesteps):
                    latents = predict(latents, timestep, index == 0)
                return latents

        sampler = Calls(cfg)
        sampler.scheduler.set_timesteps(sampler.steps)
        model.generator.sampler = sampler
        decoder = model.generator.view_refined_decoder
        decoder.of_prototypes = lambda prototypes: decoder(prototypes)  # it keeps results by their address
    return model


def _batch(cfg: CfgNode, batch_size: int) -> dict[str, Any]:
    images = torch.zeros(batch_size, 3, *cfg.INPUT.SIZE_TEST, dtype=torch.uint8)
    return {"images": images, "img_paths": [f"{number}.jpg" for number in range(batch_size)]}
