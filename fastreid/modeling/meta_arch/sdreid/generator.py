"""The Stage-2 generator: from identity tokens and a view to the person's feature in that view."""

import logging
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.modeling.meta_arch.sdreid.attention import KeptProjections
from fastreid.modeling.meta_arch.sdreid.chunks import Chunks
from fastreid.modeling.meta_arch.sdreid.condition_learner import ConditionLearner
from fastreid.modeling.meta_arch.sdreid.latent import LatentCodec
from fastreid.modeling.meta_arch.sdreid.noise import draw_noise
from fastreid.modeling.meta_arch.sdreid.sampler import Sampler, clean_latents
from fastreid.modeling.meta_arch.sdreid.schedulers import schedule_settings
from fastreid.modeling.meta_arch.sdreid.training import DiffusionTraining, view_separation_loss
from fastreid.modeling.meta_arch.sdreid.unet import build_unet
from fastreid.modeling.meta_arch.sdreid.unet_weights import load_unet_weights
from fastreid.modeling.meta_arch.sdreid.view_refined_decoder import (
    UNetResiduals,
    ViewRefinedDecoder,
    refined_unet,
)
from fastreid.utils.env import resolve_device, send

logger = logging.getLogger(__name__)


class FeatureGenerator(nn.Module):
    """Condition learner, View-Refined Decoder and UNet (SD-ReID, Stage 2).

    Args:
        unet: its cross-attention context and its latents have the width of the features.
        decoder: of its sizes.
        learner: makes the context.
        sampler: takes the steps.
        training: how it trains.
        prediction: "sample" takes the sampler's steps, "mean" predicts the clean latent in one call.
        guidance_scale: of the steps; 1 leaves out the unconditional branch.
        per_image_noise: draw noise by the images' names; else all images have one sequence a view.
        seed: of the noise.
    """

    learner_class: ClassVar[type[ConditionLearner]] = ConditionLearner

    def __init__(
        self,
        unet: UNet2DConditionModel,
        decoder: ViewRefinedDecoder,
        learner: ConditionLearner,
        sampler: Sampler,
        training: DiffusionTraining,
        prediction: str = "sample",
        guidance_scale: float = 2.0,
        per_image_noise: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.codec = LatentCodec(learner.dim)
        self.unet = unet
        self.view_refined_decoder = decoder
        self.condition_learner = learner
        self.sampler = sampler
        self.options = training
        self.noise_scheduler = training.noise_scheduler
        self.train_steps = self.noise_scheduler.config.num_train_timesteps
        self.prediction = prediction
        self.guidance_scale = guidance_scale
        self.per_image_noise = per_image_noise
        self.seed = seed
        self.is_compiled = False
        self.counted_latents = 0  # that `count_calls` has seen pass the UNet
        self._chunks = Chunks()

    @classmethod
    def from_config(cls, cfg: CfgNode, dim: int, num_id_tokens: int) -> "FeatureGenerator":
        """Make the generator that MODEL.SDMODEL and TEST.SDMODEL describe.

        Args:
            dim: feature width D.
            num_id_tokens: L-1, the identity tokens that the encoder gives.
        """
        settings, test = cfg.MODEL.SDMODEL, cfg.TEST.SDMODEL
        schedule, own = schedule_settings(cfg), settings.CON_LEARNER_CONFIG
        unet = build_unet(settings.UNET_CONFIG, dim)
        generator = cls(
            unet,
            ViewRefinedDecoder(dim, unet, settings.VRD_CONFIG.KERNEL_SIZES, settings.VRD_CONFIG.PYRAMIDS),
            cls.learner_class(dim, num_id_tokens + 1, own.DEPTH, own.HEADS, settings.STANDARDIZE_TOKENS),
            Sampler(settings.SCHEDULER_CONFIG.NAME, schedule, test.NUM_INFERENCE_STEPS),
            DiffusionTraining.from_config(cfg, schedule),
            test.PREDICTION,
            test.FULL_GUIDANCE_SCALE,
            test.NOISE == "per_image",
            cfg.MODEL.SEED,
        )
        if settings.CHANNELS_LAST and resolve_device(cfg.MODEL.DEVICE).type == "cuda":
            unet.to(memory_format=torch.channels_last)  # as its kernels want
        if settings.GRADIENT_CHECKPOINTING:
            unet.enable_gradient_checkpointing()
        if settings.COMPILE and unet.device.type != "meta":
            unet.compile()  # in place: the names in the state dict stay
            generator.is_compiled = True
        return generator

    def load_pretrained(self, folder: str) -> None:
        """Give the UNet the weights of a diffusers folder; say so if none is named.

        Raises:
            UserError: if they are missing, cannot be read or do not fit.
        """
        if folder:
            logger.info("UNet weights from %s", load_unet_weights(self.unet, folder))
        else:
            logger.warning(
                "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH is empty: a small UNet of widths %s starts from"
                " random weights; name a folder to start from a trained one",
                list(self.unet.config.block_out_channels),
            )

    @property
    def draws(self) -> int:
        """Count the noise tensors that each latent needs."""
        return 1 if self.prediction == "mean" else self.sampler.draws

    def statistics_to_fit(self) -> dict[str, Callable[[Tensor, Tensor], None]]:
        """Return what takes mean and standard deviation over the training set, by the encoder's output."""
        fits: dict[str, Callable[[Tensor, Tensor], None]] = {}
        if self.options.standardize_latent:
            fits["features"] = self.codec.fit
        if self.condition_learner.standardize:
            fits["id_tokens"] = self.condition_learner.fit
        return fits

    def forward(
        self,
        id_tokens: Tensor,
        prototypes: Tensor,
        view_tokens: Tensor,
        targets: Tensor,
        apart: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the training losses: mean squared error of the prediction at random timesteps, and more.

        Args:
            id_tokens: (B, L-1, D) identity conditions.
            prototypes: (B, D) prototype of the target's view.
            view_tokens: (B, D) the target's own view token; by ``VIEW_MAP`` the decoder sees it or the
                prototype as a map.
            targets: (B, D) the features to be generated.
            apart: bool (B, B), the pairs of samples that show one person in different views.

        Returns:
            Scalars: ``loss_noise``, and with ``VIEW_SEPARATION`` and `apart` ``loss_views``.
        """
        id_tokens = self.options.drop_tokens(id_tokens)
        context = self.condition_learner(id_tokens, prototypes)
        context = self.condition_learner.drop(context, self.options.null_share)
        residuals = self.residuals(self.options.view_maps(view_tokens, prototypes))
        latents = self.codec.encode(targets)
        noise = torch.randn_like(latents)
        timesteps = self.options.draw_timesteps(len(latents), latents.device)
        noisy = self.noise_scheduler.add_noise(latents, noise, timesteps)
        predicted = refined_unet(self.unet, noisy, timesteps, context, residuals)
        target = self.options.regression_target(latents, noise, timesteps)
        losses = {"loss_noise": nn.functional.mse_loss(predicted.float(), target.float())}
        if self.options.view_separation and apart is not None:
            clean = self.options.clean_latents(predicted.float(), noisy, timesteps)
            losses["loss_views"] = self.options.view_separation * view_separation_loss(clean, latents, apart)
        return losses

    def residuals(self, view_tokens: Tensor) -> UNetResiduals:
        """Return the pyramids of view tokens (B, D)."""
        return self.view_refined_decoder(view_tokens)

    @torch.no_grad()
    def generate(
        self, id_tokens: Tensor, prototypes: Tensor, names: Sequence[str], views: Sequence[int] | None = None
    ) -> Tensor:
        """Generate every image's feature in every view, or in some.

        Args:
            id_tokens: (B, L-1, D).
            prototypes: (V, D) the memory bank.
            names: B image paths, read for per-image noise only.
            views: which of the V views, at least one, in the order of the result; None: all. The others
                are not computed.

        Returns:
            (B, V, D) float32; it does not depend on how images are batched, nor on the other views.
        """
        # one by one: a list as an index would be sent to the device, and waited for
        chosen = prototypes if views is None else torch.stack([prototypes[view] for view in views])
        residuals = self.residuals(chosen)
        branches = 2 if self.prediction == "sample" and self.guidance_scale != 1.0 else 1

        def work(part: slice) -> Tensor:
            noise = self._noise(names[part], len(prototypes), views, id_tokens.device)
            return self._generate(id_tokens[part], chosen, residuals, noise)

        latents = self._chunks(work, len(id_tokens), len(chosen) * branches, id_tokens.device)
        return self.codec.decode(latents).unflatten(0, (-1, len(chosen)))

    def _noise(
        self, names: Sequence[str], num_views: int, views: Sequence[int] | None, device: torch.device
    ) -> Tensor:
        """Draw (draws, B * V, 4, h, w) for the V chosen of `num_views`; a view always has the same noise."""
        noise = draw_noise(self.seed, num_views, names, self.per_image_noise, self.draws, self.codec.shape)
        if views is not None:
            noise = noise.unflatten(1, (-1, num_views))[:, :, list(views)].flatten(1, 2)
        copies = 1 if self.per_image_noise else len(names)
        return send(noise, device).repeat(1, copies, 1, 1, 1)

    def _generate(
        self, id_tokens: Tensor, prototypes: Tensor, residuals: UNetResiduals, noise: Tensor
    ) -> Tensor:
        """Return the latents (B * V, 4, h, w) of one chunk; `residuals` has a map for each of the V views."""
        batch, views = len(id_tokens), len(prototypes)
        id_tokens = id_tokens.repeat_interleave(views, dim=0)
        context = self.condition_learner(id_tokens, prototypes.repeat(batch, 1))
        if self.prediction == "mean":
            return self._predict_mean(noise[0], context, residuals.repeat(batch))
        if self.guidance_scale != 1.0:
            context = torch.cat([self.condition_learner.null_context.expand_as(context), context])
        # What torch.compile has compiled it would compile again for every new context.
        kept = None if self.is_compiled else KeptProjections(context)
        if self.guidance_scale != 1.0:
            return self.sampler(noise, self._guided_prediction(context, residuals, kept, batch, views))
        residuals = residuals.repeat(batch)
        return self.sampler(
            noise, lambda inputs, t, _: refined_unet(self.unet, inputs, t, context, residuals, kept)
        )

    def _predict_mean(self, noise: Tensor, context: Tensor, residuals: UNetResiduals) -> Tensor:
        """Return the clean latent as predicted in one call from pure noise, without guidance."""
        last = self.train_steps - 1
        timestep = torch.full((), last, device=noise.device)  # to send a plain number is to wait
        predicted = refined_unet(self.unet, noise, timestep, context, residuals).float()
        kept = send(self.noise_scheduler.alphas_cumprod[last], noise.device)  # training may have moved them
        return clean_latents(self.noise_scheduler.config.prediction_type, predicted, noise, kept)

    def _guided_prediction(
        self, contexts: Tensor, residuals: UNetResiduals, kept: KeptProjections | None, batch: int, views: int
    ) -> Callable[[Tensor, Tensor, bool], Tensor]:
        """Return classifier-free guidance as the sampler calls it; both branches pass the UNet together.

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
                kept,
            ).float()  # the branches are nearly equal: their difference would lose digits in bf16
            unconditional, conditional = predicted[:rows].repeat(batch // images, 1, 1, 1), predicted[rows:]
            return unconditional + self.guidance_scale * (conditional - unconditional)

        return predict
