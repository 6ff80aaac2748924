"""The training of Stage 2's generator: noise, timesteps, and what is dropped or blended on the way."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import SchedulerMixin
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.modeling.meta_arch.sdreid.sampler import clean_latents
from fastreid.modeling.meta_arch.sdreid.schedulers import build_scheduler


@dataclass(frozen=True)
class DiffusionTraining:
    """The choices of a training step.

    Attributes:
        noise_scheduler: adds noise.
        timestep_power: p of ``t = (1 - u^p) * TRAIN_STEP``, see :meth:`draw_timesteps`.
        null_share: share of samples that get the null context.
        token_dropout: probability of an identity token to be blanked.
        view_map: what the decoder sees: "instance" (the paper's), "prototype", or "mixed": either.
        standardize_latent: train on latents without the training set's mean and scale.
        view_separation: weight of :func:`view_separation_loss`.
    """

    noise_scheduler: SchedulerMixin
    timestep_power: float
    null_share: float
    token_dropout: float
    view_map: str
    standardize_latent: bool
    view_separation: float = 0.0

    @classmethod
    def from_config(cls, cfg: CfgNode, schedule: dict[str, Any]) -> "DiffusionTraining":
        """Make what MODEL.SDMODEL describes; `schedule`: see `schedule_settings`."""
        settings = cfg.MODEL.SDMODEL
        sampling = settings.SCHEDULER_CONFIG
        return cls(
            build_scheduler("ddpm", schedule),
            3.0 if sampling.CUBIC_SAMPLING else sampling.TIMESTEP_POWER,
            settings.U_COND_PERCENT,
            settings.TOKEN_DROPOUT,
            settings.VIEW_MAP,
            settings.STANDARDIZE_LATENT,
            settings.VIEW_SEPARATION,
        )

    def drop_tokens(self, id_tokens: Tensor) -> Tensor:
        """Blank a random share of the identity tokens (B, L-1, D)."""
        if not self.token_dropout:
            return id_tokens
        kept = torch.rand(*id_tokens.shape[:2], 1, device=id_tokens.device) >= self.token_dropout
        return id_tokens * kept

    def view_maps(self, view_tokens: Tensor, prototypes: Tensor) -> Tensor:
        """Choose what the decoder sees (B, D): the instances, the prototypes, or either."""
        if self.view_map == "instance":
            return view_tokens
        if self.view_map == "prototype":
            return prototypes
        from_instance = torch.rand(len(view_tokens), 1, device=view_tokens.device) < 0.5
        return torch.where(from_instance, view_tokens, prototypes)

    def draw_timesteps(self, count: int, device: torch.device) -> Tensor:
        """Draw (count,) int64 in [0, TRAIN_STEP): ``(1 - u^p) * TRAIN_STEP`` of a uniform u.

        p = 3 is the paper's cubic sampling, p = 1 is uniform, and the larger p, the closer to pure noise.
        """
        steps = self.noise_scheduler.config.num_train_timesteps
        fraction = 1 - torch.rand(count, device=device) ** self.timestep_power
        return (fraction * steps).long().clamp(max=steps - 1)

    def regression_target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the UNet is to predict: the noise, the latents, or the velocity."""
        kind = self.noise_scheduler.config.prediction_type
        if kind == "v_prediction":
            return self.noise_scheduler.get_velocity(latents, noise, timesteps)
        return latents if kind == "sample" else noise

    def clean_latents(self, predicted: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Return the clean latents (B, 4, h, w) that the UNet's prediction stands for."""
        kept = self.noise_scheduler.alphas_cumprod.to(noisy.device)[timesteps][:, None, None, None]
        return clean_latents(self.noise_scheduler.config.prediction_type, predicted, noisy, kept)


def view_separation_loss(predicted: Tensor, targets: Tensor, apart: Tensor) -> Tensor:
    """Return how much more alike a person's predicted views are than the targets of these views.

    It is the mean of ``max(0, cos(predicted_i, predicted_j) - cos(target_i, target_j))`` over pairs i, j. A
    perfect prediction has none of it. The mean of all views, which the squared error falls back to where the
    condition of the view is not used, has the most.

    Args:
        predicted, targets: (B, ...) clean latents.
        apart: bool (B, B), the pairs that show one person in different views.

    Returns:
        A scalar; 0 without such a pair.
    """
    alike, real = (_cosines(latents.flatten(1)) for latents in (predicted, targets))
    return ((alike - real).clamp(min=0) * apart).sum() / apart.sum().clamp(min=1)


def _cosines(vectors: Tensor) -> Tensor:
    with torch.autocast(vectors.device.type, enabled=False):  # it would round the product
        directions = nn.functional.normalize(vectors.float(), dim=1)
        return directions @ directions.T
