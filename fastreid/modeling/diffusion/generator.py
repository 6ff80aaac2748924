"""The Stage-2 generator: from identity tokens and a view to the person's feature in that view."""

import inspect
from collections.abc import Sequence

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.modeling.diffusion.condition_learner import ConditionLearner
from fastreid.modeling.diffusion.latent import LatentCodec
from fastreid.modeling.diffusion.noise import noise_generators
from fastreid.modeling.diffusion.schedulers import build_scheduler
from fastreid.modeling.diffusion.unet import build_unet
from fastreid.modeling.diffusion.view_refined_decoder import UNetResiduals, ViewRefinedDecoder, refined_unet


class FeatureGenerator(nn.Module):
    """Condition learner, View-Refined Decoder and UNet (SD-ReID, Stage 2).

    Args:
        cfg: the configuration; `MODEL.SDMODEL` and `TEST.SDMODEL` are read.
        dim: feature width D.
        num_id_tokens: L-1, the identity tokens that the encoder gives.
    """

    def __init__(self, cfg: CfgNode, dim: int, num_id_tokens: int) -> None:
        super().__init__()
        settings = cfg.MODEL.SDMODEL
        self.codec = LatentCodec(dim)
        self.unet = build_unet(cfg, dim)
        self.view_refined_decoder = ViewRefinedDecoder(dim, self.unet)
        learner = settings.CON_LEARNER_CONFIG
        self.condition_learner = ConditionLearner(dim, num_id_tokens + 1, learner.DEPTH, learner.HEADS)

        self.noise_scheduler = build_scheduler(cfg, "ddpm")
        self.sampling_scheduler = build_scheduler(cfg, settings.SCHEDULER_CONFIG.NAME)
        self.train_steps = settings.TRAIN_STEP
        self.cubic_sampling = settings.SCHEDULER_CONFIG.CUBIC_SAMPLING
        self.null_share = settings.U_COND_PERCENT

        self.seed = cfg.MODEL.SEED
        self.prediction = cfg.TEST.SDMODEL.PREDICTION
        self.per_image_noise = cfg.TEST.SDMODEL.NOISE == "per_image"
        self.inference_steps = cfg.TEST.SDMODEL.NUM_INFERENCE_STEPS
        self.guidance_scale = cfg.TEST.SDMODEL.FULL_GUIDANCE_SCALE

    def forward(self, id_tokens: Tensor, prototypes: Tensor, view_tokens: Tensor, targets: Tensor) -> Tensor:
        """The training loss: mean squared error of the predicted noise at random timesteps.

        Args:
            id_tokens: (B, L-1, D) identity conditions.
            prototypes: (B, D) prototype of the target's view.
            view_tokens: (B, D) the target's own view token, which the decoder sees as a map.
            targets: (B, D) the features to be generated.

        Returns:
            A scalar.
        """
        context = self.condition_learner.drop(self.condition_learner(id_tokens, prototypes), self.null_share)
        residuals = self.view_refined_decoder(view_tokens)
        latents = self.codec.encode(targets)
        noise = torch.randn_like(latents)
        timesteps = self.draw_timesteps(len(latents), latents.device)
        noisy = self.noise_scheduler.add_noise(latents, noise, timesteps)
        predicted = refined_unet(self.unet, noisy, timesteps, context, residuals)
        return nn.functional.mse_loss(
            predicted.float(), self._regression_target(latents, noise, timesteps).float()
        )

    def draw_timesteps(self, count: int, device: torch.device) -> Tensor:
        """(count,) int64 in [0, TRAIN_STEP): ``(1 - u^3) * TRAIN_STEP`` favours high noise; or uniform."""
        uniform = torch.rand(count, device=device)
        fraction = 1 - uniform**3 if self.cubic_sampling else uniform
        return (fraction * self.train_steps).long().clamp(max=self.train_steps - 1)

    def _regression_target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        kind = self.noise_scheduler.config.prediction_type
        if kind == "v_prediction":
            return self.noise_scheduler.get_velocity(latents, noise, timesteps)
        return latents if kind == "sample" else noise

    @torch.no_grad()
    def generate(self, id_tokens: Tensor, prototypes: Tensor, names: Sequence[str]) -> Tensor:
        """Every image's feature in every view.

        Args:
            id_tokens: (B, L-1, D).
            prototypes: (V, D) the memory bank.
            names: B image paths, read for per-image noise only.

        Returns:
            (B, V, D); it does not depend on how images are batched.
        """
        batch, views = len(id_tokens), len(prototypes)
        context = self.condition_learner(
            id_tokens.repeat_interleave(views, dim=0), prototypes.repeat(batch, 1)
        )
        residuals = self.view_refined_decoder(prototypes).repeat(batch)
        generators = noise_generators(self.seed, views, names, self.per_image_noise)
        noise = randn_tensor(
            (batch * views, *self.codec.shape), generators, device=context.device, dtype=context.dtype
        )
        if self.prediction == "mean":
            latents = self._predict_mean(noise, context, residuals, generators)
        else:
            latents = self._sample(noise, context, residuals, generators)
        return self.codec.decode(latents).unflatten(0, (batch, views))

    def _predict_mean(
        self, noise: Tensor, context: Tensor, residuals: UNetResiduals, generators: list[torch.Generator]
    ) -> Tensor:
        """The clean latent as predicted in one call from pure noise, without guidance."""
        last = self.train_steps - 1
        predicted = refined_unet(self.unet, noise, last, context, residuals)
        step = self.noise_scheduler.step(predicted, last, noise, generator=generators)
        return step.pred_original_sample

    def _sample(
        self, noise: Tensor, context: Tensor, residuals: UNetResiduals, generators: list[torch.Generator]
    ) -> Tensor:
        """The scheduler's steps with classifier-free guidance; both branches go through the UNet together.

        The unconditional branch has the learned null context and the same view residuals, as in training.
        """
        scheduler = self.sampling_scheduler
        guided = self.guidance_scale != 1.0
        if guided:
            null_context = self.condition_learner.null_context.expand_as(context)
            context = torch.cat([null_context, context])
            residuals = residuals.repeat(2)
        draws_noise = "generator" in inspect.signature(scheduler.step).parameters
        options = {"generator": generators} if draws_noise else {}

        scheduler.set_timesteps(self.inference_steps, device=noise.device)
        latents = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            inputs = scheduler.scale_model_input(latents, timestep)
            inputs = torch.cat([inputs, inputs]) if guided else inputs
            predicted = refined_unet(self.unet, inputs, timestep, context, residuals)
            if guided:
                unconditional, conditional = predicted.chunk(2)
                predicted = unconditional + self.guidance_scale * (conditional - unconditional)
            latents = scheduler.step(predicted, timestep, latents, **options).prev_sample
        return latents
