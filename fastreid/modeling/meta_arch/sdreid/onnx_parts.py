"""Stage 2 as what can be exported: encoder, denoising step, fusion, and the sampler as numbers."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from fastreid.modeling.meta_arch.export import draw_images, reduced
from fastreid.modeling.meta_arch.sdreid.encoder import SDReIDEncoder
from fastreid.modeling.meta_arch.sdreid.generator import FeatureGenerator
from fastreid.modeling.meta_arch.sdreid.noise import draw_noise
from fastreid.modeling.meta_arch.sdreid.sampler import clean_latents
from fastreid.modeling.meta_arch.sdreid.view_refined_decoder import refined_unet
from fastreid.structures import ExportPart, Tensors
from fastreid.utils.errors import UserError

CONTIGUOUS_FROM = 64  # rows from which diffusers' up-sampling takes another way to the same result


class DenoisingStep(nn.Module):
    """The prediction of one sampling step: condition learner, View-Refined Decoder, UNet and guidance.

    The view prototypes and the learned null context are part of it.
    """

    def __init__(self, model: SDReIDEncoder) -> None:
        super().__init__()
        self.generator = model.generator
        self.memory_bank = model.memory_bank
        self.guided = model.generator.prediction == "sample" and model.generator.guidance_scale != 1.0

    def forward(self, latents: Tensor, timestep: Tensor, id_tokens: Tensor, views: Tensor) -> Tensor:
        """Return what the scheduler takes as the network's prediction.

        Args:
            latents: (N, 4, h, w) float32.
            timestep: an int64 scalar.
            id_tokens: (N, L-1, D) float32, the encoder's.
            views: (N,) int64, the view to generate.

        Returns:
            (N, 4, h, w) float32.
        """
        generator = self.generator
        prototypes = self.memory_bank.prototypes[views]
        context = generator.condition_learner(id_tokens, prototypes)
        residuals = generator.view_refined_decoder(prototypes)
        if not self.guided:
            return refined_unet(generator.unet, latents, timestep, context, residuals)
        null_context = generator.condition_learner.null_context.expand_as(context)
        predicted = refined_unet(
            generator.unet,
            torch.cat([latents, latents]),
            timestep,
            torch.cat([null_context, context]),
            residuals.repeat(2),
        )
        rows = latents.shape[0]
        unconditional, conditional = predicted[:rows], predicted[rows:]
        return unconditional + generator.guidance_scale * (conditional - unconditional)

    @property
    def max_batch(self) -> int:
        """Rows below which the UNet is one graph for all batch sizes, as tracing needs it."""
        return (CONTIGUOUS_FROM - 1) // (2 if self.guided else 1)


class FeatureFusion(nn.Module):
    """The retrieval feature from the person feature and the sampled latents of every view."""

    def __init__(self, model: SDReIDEncoder) -> None:
        super().__init__()
        self.model = reduced(model, "heads")
        self.codec = model.generator.codec

    def forward(self, feature: Tensor, latents: Tensor, viewids: Tensor | None = None) -> Tensor:
        """Map (B, E) and (B, V, 4, h, w) to (B, E + V * D), as ``TEST.SDMODEL`` says.

        Args:
            viewids: int64 (B,), the images' own views, for a model that reads them.
        """
        generated = self.codec.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        own = None if viewids is None else viewids[:, None] == torch.arange(latents.shape[1])
        return self.model.fused(feature, generated, own).float()


def sampling_plan(generator: FeatureGenerator, views: int) -> Tensors:
    """Return the generator's sampler, or its one-call prediction, as numbers, for V `views`.

    The steps are linear in the noise and in the predictions. With S denoising steps and R noise tensors for
    each latent, step k's input is row k of ``inputs`` (S, R + S) times the R noise tensors and the
    predictions so far, zero where one is not known yet; the latent is ``final`` (R + S,) times all of them.
    ``timesteps`` is (S,) int64. ``noise`` (R, V, 4, h, w), for every image the same, is absent when each
    image has noise of its own. The numbers are found by sampling with unit vectors in the place of noise
    tensors and predictions.

    Raises:
        UserError: for a scheduler that clips, which is not linear.
    """
    timesteps, inputs, final = _one_call(generator) if generator.prediction == "mean" else _probe(generator)
    plan = {"timesteps": torch.tensor(timesteps), "inputs": inputs, "final": final}
    if not generator.per_image_noise:
        shape = generator.codec.shape
        plan["noise"] = draw_noise(generator.seed, views, [""], False, generator.draws, shape)
    return plan


def _one_call(generator: FeatureGenerator) -> tuple[list[int], Tensor, Tensor]:
    last = generator.train_steps - 1
    scheduler = generator.noise_scheduler
    noise, predicted = torch.eye(2)
    kind, kept = scheduler.config.prediction_type, scheduler.alphas_cumprod[last]
    return [last], noise[None], clean_latents(kind, predicted, noise, kept)


def _probe(generator: FeatureGenerator) -> tuple[list[int], Tensor, Tensor]:
    sampler = generator.sampler
    settings = sampler.scheduler.config
    if settings.get("clip_sample") or settings.get("thresholding"):
        raise UserError(
            "MODEL.SDMODEL.SCHEDULER_CONFIG: a scheduler with clip_sample or thresholding cannot be exported",
            "set both to false in scheduler_config.json, as Stable Diffusion v1.5 has them",
        )
    sampler.scheduler.set_timesteps(sampler.steps)
    draws = sampler.draws
    units = torch.eye(draws + len(sampler.scheduler.timesteps))[..., None, None, None]
    timesteps: list[int] = []
    inputs: list[Tensor] = []

    def predict(latents: Tensor, timestep: Tensor, is_first: bool) -> Tensor:
        timesteps.append(int(timestep))
        inputs.append(latents.flatten())
        return units[draws + len(inputs) - 1]

    final = sampler(units[:draws], predict).flatten()
    return timesteps, torch.stack(inputs), final


def image_noise(model: SDReIDEncoder, names: Sequence[str]) -> np.ndarray | None:
    """Return (R, B, V, 4, h, w): the noise of B images by name; None when all images have the plan's."""
    generator, views = model.generator, len(model.memory_bank.prototypes)
    if not generator.per_image_noise:
        return None
    noise = draw_noise(generator.seed, views, names, True, generator.draws, generator.codec.shape)
    return noise.unflatten(1, (len(names), views)).numpy()


class Encoder(nn.Module):
    """The part of Stage 2 that comes before anything is generated."""

    def __init__(self, model: SDReIDEncoder) -> None:
        super().__init__()
        self.model = reduced(model, "backbone", "heads")

    def forward(self, images: Tensor, viewids: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map uint8 RGB (B, 3, H, W) to the post-neck feature (B, E) and the identity tokens (B, L-1, D).

        A model that reads `viewids` has them as an input here, too, and they change nothing.
        """
        encoded = self.model.encode({"images": images})
        return self.model.heads(encoded.features).float(), encoded.id_tokens


def stage2_parts(model: SDReIDEncoder) -> list[ExportPart]:
    """Return the encoder, the denoising step and the fusion of features."""
    model.generator.unet._compiled_call_impl = None  # MODEL.SDMODEL.COMPILE's: files are of the module itself
    step = DenoisingStep(model)
    encoder = ExportPart("encoder", Encoder(model), ("feature", "id_tokens"), partial(draw_images, model))
    return [
        encoder,
        ExportPart("denoiser", step, ("prediction",), partial(_draw_step, model, encoder), step.max_batch),
        ExportPart(
            "fusion", FeatureFusion(model), ("retrieval_feature",), partial(_draw_generated, model, encoder)
        ),
    ]


def _draw_step(model: SDReIDEncoder, encoder: ExportPart, batch_size: int) -> Tensors:
    """Draw identity tokens of random pictures, noise, any of the timesteps, and the views in turn."""
    id_tokens = encoder.module(**encoder.draw_inputs(batch_size))[1]
    source = torch.Generator().manual_seed(batch_size)
    views = len(model.memory_bank.prototypes)
    return {
        "latents": torch.randn(batch_size, *model.generator.codec.shape, generator=source),
        "timestep": torch.randint(model.generator.train_steps, (), generator=source),
        "id_tokens": id_tokens,
        "views": torch.arange(batch_size) % views,
    }


def _draw_generated(model: SDReIDEncoder, encoder: ExportPart, batch_size: int) -> Tensors:
    """Draw person features of random pictures, random latents, and the views that the model reads."""
    source = torch.Generator().manual_seed(batch_size)
    shape = (batch_size, len(model.memory_bank.prototypes), *model.generator.codec.shape)
    labels = encoder.draw_inputs(batch_size)
    feature = encoder.module(labels.pop("images"))[0]
    return {"feature": feature, "latents": torch.randn(shape, generator=source), **labels}
