"""The Stage-2 generator: from identity tokens and a view to the person's feature in that view."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.modeling.meta_arch.sdreid.chunks import Chunks
from fastreid.modeling.meta_arch.sdreid.condition_learner import ConditionLearner
from fastreid.modeling.meta_arch.sdreid.constant_conditions import constant_conditions
from fastreid.modeling.meta_arch.sdreid.latent import LatentCodec
from fastreid.modeling.meta_arch.sdreid.sampler import Sampler, clean_latents, draw_noise
from fastreid.modeling.meta_arch.sdreid.schedulers import build_scheduler
from fastreid.modeling.meta_arch.sdreid.unet import build_unet
from fastreid.modeling.meta_arch.sdreid.view_refined_decoder import UNetResiduals, ViewRefinedDecoder, refined_unet
from fastreid.utils.env import resolve_device


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
        self.view_refined_decoder = ViewRefinedDecoder(
            dim, self.unet, settings.VRD_CONFIG.KERNEL_SIZES, settings.VRD_CONFIG.PYRAMIDS
        )
        learner = settings.CON_LEARNER_CONFIG
        self.condition_learner = ConditionLearner(
            dim, num_id_tokens + 1, learner.DEPTH, learner.HEADS, settings.STANDARDIZE_TOKENS
        )

        self.noise_scheduler = build_scheduler(cfg, "ddpm")
        self.sampler = Sampler(cfg)
        self.train_steps = settings.TRAIN_STEP
        sampling = settings.SCHEDULER_CONFIG
        self.timestep_power = 3.0 if sampling.CUBIC_SAMPLING else sampling.TIMESTEP_POWER
        self.view_map = settings.VIEW_MAP
        self.null_share = settings.U_COND_PERCENT
        self.token_dropout = settings.TOKEN_DROPOUT

        self.seed = cfg.MODEL.SEED
        self.prediction = cfg.TEST.SDMODEL.PREDICTION
        self.per_image_noise = cfg.TEST.SDMODEL.NOISE == "per_image"
        self.guidance_scale = cfg.TEST.SDMODEL.FULL_GUIDANCE_SCALE
        self._chunks = Chunks()
        if settings.GRADIENT_CHECKPOINTING:
            self.unet.enable_gradient_checkpointing()
        self.is_compiled = settings.COMPILE
        if self.is_compiled:
            self.unet.compile()  # in place: the names in the state dict stay
        if resolve_device(cfg.MODEL.DEVICE).type == "cuda":
            self.unet.to(memory_format=torch.channels_last)

    def forward(self, id_tokens: Tensor, prototypes: Tensor, view_tokens: Tensor, targets: Tensor) -> Tensor:
        """The training loss: mean squared error of the prediction at random timesteps.

        Args:
            id_tokens: (B, L-1, D) identity conditions.
            prototypes: (B, D) prototype of the target's view.
            view_tokens: (B, D) the target's own view token; by ``VIEW_MAP`` the decoder sees it or the
                prototype as a map.
            targets: (B, D) the features to be generated.

        Returns:
            A scalar.
        """
        if self.token_dropout:
            kept = torch.rand(*id_tokens.shape[:2], 1, device=id_tokens.device) >= self.token_dropout
            id_tokens = id_tokens * kept
        context = self.condition_learner(id_tokens, prototypes)
        context = self.condition_learner.drop(context, self.null_share)
        residuals = self.view_refined_decoder(self._view_maps(view_tokens, prototypes))
        latents = self.codec.encode(targets)
        noise = torch.randn_like(latents)
        timesteps = self.draw_timesteps(len(latents), latents.device)
        noisy = self.noise_scheduler.add_noise(latents, noise, timesteps)
        predicted = refined_unet(self.unet, noisy, timesteps, context, residuals)
        return nn.functional.mse_loss(
            predicted.float(), self._regression_target(latents, noise, timesteps).float()
        )

    def _view_maps(self, view_tokens: Tensor, prototypes: Tensor) -> Tensor:
        """What the decoder sees in training: the instance (the paper's), the prototype, or either."""
        if self.view_map == "instance":
            return view_tokens
        if self.view_map == "prototype":
            return prototypes
        from_instance = torch.rand(len(view_tokens), 1, device=view_tokens.device) < 0.5
        return torch.where(from_instance, view_tokens, prototypes)

    def draw_timesteps(self, count: int, device: torch.device) -> Tensor:
        """(count,) int64 in [0, TRAIN_STEP): ``(1 - u^p) * TRAIN_STEP`` of a uniform u.

        p = 3 is the paper's cubic sampling, p = 1 is uniform, and the larger p, the closer to pure noise.
        """
        fraction = 1 - torch.rand(count, device=device) ** self.timestep_power
        return (fraction * self.train_steps).long().clamp(max=self.train_steps - 1)

    def _regression_target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        kind = self.noise_scheduler.config.prediction_type
        if kind == "v_prediction":
            return self.noise_scheduler.get_velocity(latents, noise, timesteps)
        return latents if kind == "sample" else noise

    @torch.no_grad()
    def generate(
        self,
        id_tokens: Tensor,
        prototypes: Tensor,
        names: Sequence[str],
        views: Sequence[int] | None = None,
    ) -> Tensor:
        """Every image's feature in every view, or in some.

        Args:
            id_tokens: (B, L-1, D).
            prototypes: (V, D) the memory bank.
            names: B image paths, read for per-image noise only.
            views: which of the V views, at least one, in the order of the result; None: all. The others
                are not computed.

        Returns:
            (B, V, D) float32; it does not depend on how images are batched, nor on the other views.
        """
        chosen = prototypes if views is None else prototypes[list(views)]
        residuals = self.view_refined_decoder.of_prototypes(chosen)
        branches = 2 if self.prediction == "sample" and self.guidance_scale != 1.0 else 1

        def work(part: slice) -> Tensor:
            noise = self._noise(names[part], len(prototypes), views)
            return self._generate(id_tokens[part], chosen, residuals, noise.to(id_tokens.device))

        latents = self._chunks(work, len(id_tokens), len(chosen) * branches, id_tokens.device)
        return self.codec.decode(latents).unflatten(0, (-1, len(chosen)))

    def _noise(self, names: Sequence[str], num_views: int, views: Sequence[int] | None) -> Tensor:
        """(draws, B * V, 4, h, w) for the V chosen of `num_views`; a view always has the same noise."""
        draws = 1 if self.prediction == "mean" else self.sampler.draws
        noise = draw_noise(self.seed, num_views, names, self.per_image_noise, draws, self.codec.shape)
        if views is None:
            return noise
        return noise.unflatten(1, (-1, num_views))[:, :, list(views)].flatten(1, 2)

    def _generate(
        self, id_tokens: Tensor, prototypes: Tensor, residuals: UNetResiduals, noise: Tensor
    ) -> Tensor:
        """The latents (B * V, 4, h, w) of one chunk; `residuals` has a map for each of the V views."""
        batch, views = len(id_tokens), len(prototypes)
        context = self.condition_learner(
            id_tokens.repeat_interleave(views, dim=0), prototypes.repeat(batch, 1)
        )
        if self.prediction == "mean":
            return self._predict_mean(noise[0], context, residuals.repeat(batch))
        if self.guidance_scale == 1.0:
            residuals = residuals.repeat(batch)

            def predict(inputs: Tensor, timestep: Tensor, is_first: bool) -> Tensor:
                return refined_unet(self.unet, inputs, timestep, context, residuals)
        else:
            context = torch.cat([self.condition_learner.null_context.expand_as(context), context])
            predict = self._guided_prediction(context, residuals, batch, views)
        # What torch.compile has compiled it would compile again for every new constant.
        with nullcontext() if self.is_compiled else constant_conditions(self.unet, context):
            return self.sampler(noise, predict)

    def _predict_mean(self, noise: Tensor, context: Tensor, residuals: UNetResiduals) -> Tensor:
        """The clean latent as predicted in one call from pure noise, without guidance."""
        last = self.train_steps - 1
        predicted = refined_unet(self.unet, noise, last, context, residuals).float()
        scheduler = self.noise_scheduler
        return clean_latents(
            scheduler.config.prediction_type, predicted, noise, scheduler.alphas_cumprod[last]
        )

    def _guided_prediction(
        self, contexts: Tensor, residuals: UNetResiduals, batch: int, views: int
    ) -> Callable[[Tensor, Tensor, bool], Tensor]:
        """Classifier-free guidance as the sampler calls it; both branches go through the UNet together.

        The unconditional branch has the learned null context and the same view residuals, as in training.
        With common noise its first step has the same inputs for all images: they are computed once.
        """
        all_residuals = residuals.repeat(2 * batch)

        def predict(inputs: Tensor, timestep: Tensor, is_first: bool) -> Tensor:
            images = 1 if is_first and not self.per_image_noise else batch
            rows, both = images * views, (images + batch) * views
            predicted = refined_unet(
                self.unet,
                torch.cat([inputs[:rows], inputs]),
                timestep,
                contexts[-both:],
                all_residuals.first(both),
            ).float()  # the branches are nearly equal: their difference would lose digits in bf16
            unconditional, conditional = predicted[:rows].repeat(batch // images, 1, 1, 1), predicted[rows:]
            return unconditional + self.guidance_scale * (conditional - unconditional)

        return predict
