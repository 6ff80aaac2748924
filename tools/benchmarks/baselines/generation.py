"""The plain way of Stage 2: one view at a time, two UNet calls a step, conditions computed again, float32."""

from collections.abc import Sequence

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from fastreid.config import CfgNode
from fastreid.modeling.meta_arch.sdreid.generator import FeatureGenerator
from fastreid.modeling.meta_arch.sdreid.noise import noise_generators
from fastreid.modeling.meta_arch.sdreid.schedulers import build_scheduler, schedule_settings
from fastreid.modeling.meta_arch.sdreid.view_refined_decoder import refined_unet


@torch.inference_mode()
def generate_plainly(
    cfg: CfgNode, model: FeatureGenerator, id_tokens: Tensor, prototypes: Tensor, names: Sequence[str]
) -> Tensor:
    """Compute what ``generate`` gives, by diffusers' scheduler loop for each view: (B, V, D)."""
    batch, views, per_image = len(id_tokens), len(prototypes), cfg.TEST.SDMODEL.NOISE == "per_image"
    generators = noise_generators(cfg.MODEL.SEED, views, names, per_image)
    generated = []
    for view in range(views):
        scheduler = build_scheduler(cfg.MODEL.SDMODEL.SCHEDULER_CONFIG.NAME, schedule_settings(cfg))
        scheduler.set_timesteps(cfg.TEST.SDMODEL.NUM_INFERENCE_STEPS, device=id_tokens.device)
        own = generators[view::views]
        options = {"generator": own} if cfg.MODEL.SDMODEL.SCHEDULER_CONFIG.NAME == "ddpm" else {}
        latents = randn_tensor((batch, *model.codec.shape), own, device=id_tokens.device)
        latents = latents * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            inputs = scheduler.scale_model_input(latents, timestep)
            prototype = prototypes[view].expand(batch, -1)
            context = model.condition_learner(id_tokens, prototype)
            residuals = model.view_refined_decoder(prototype)
            conditional = refined_unet(model.unet, inputs, timestep, context, residuals)
            null_context = model.condition_learner.null_context.expand_as(context)
            residuals = model.view_refined_decoder(prototype)
            unconditional = refined_unet(model.unet, inputs, timestep, null_context, residuals)
            predicted = unconditional + cfg.TEST.SDMODEL.FULL_GUIDANCE_SCALE * (conditional - unconditional)
            latents = scheduler.step(predicted, timestep, latents, **options).prev_sample
        generated.append(model.codec.decode(latents))
    return torch.stack(generated, dim=1)
