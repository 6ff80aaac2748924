"""From noise to latents: a scheduler's steps with all noise drawn before the first one."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fastreid.modeling.meta_arch.sdreid.assets import SCHEDULER
from fastreid.modeling.meta_arch.sdreid.schedulers import build_scheduler, schedule_named
from fastreid.utils.env import send
from fastreid.utils.errors import UserError


class Sampler:
    """Runs the steps of a diffusion scheduler.

    The scheduler's numbers stay on the CPU, where its bookkeeping needs them, and the noise of the
    ancestral steps is an argument, so that no step waits for the device. DDPM is therefore run as DDIM
    with eta = 1, which is the same process (Song et al., Denoising Diffusion Implicit Models, ICLR 2021,
    section 4.1) and in diffusers takes its noise from outside.

    Args:
        name: of the scheduler.
        settings: of diffusers, see `schedule_settings`.
        steps: to take.

    Raises:
        UserError: for more steps than the scheduler has timesteps, and for settings of DDPM with another
            variance than the posterior's, or timesteps that are not evenly spaced.
    """

    def __init__(self, name: str, settings: dict[str, Any], steps: int) -> None:
        self.ancestral = name == "ddpm"
        self.steps = steps
        self.scheduler = build_scheduler(name, settings)
        if self.ancestral:
            variance = self.scheduler.config.variance_type
            if variance != "fixed_small":
                raise UserError(
                    f"{SCHEDULER}: its variance_type is {variance}; ddpm is implemented for fixed_small,"
                    " which is Stable Diffusion v1.5's"
                )
            # DDPM's last step ends at the clean latent, whatever `set_alpha_to_one` says of DDIM.
            self.scheduler = build_scheduler("ddim", settings | {"set_alpha_to_one": True})
        self._check_timesteps(settings["num_train_timesteps"])

    def _check_timesteps(self, train_steps: int) -> None:
        with schedule_named():
            self.scheduler.set_timesteps(self.steps)
        timesteps = self.scheduler.timesteps.tolist()
        if max(timesteps) >= train_steps:
            raise UserError(
                f"TEST.SDMODEL.NUM_INFERENCE_STEPS {self.steps}: the scheduler would begin at timestep"
                f" {max(timesteps):g} of MODEL.SDMODEL.TRAIN_STEP {train_steps}",
                "take fewer steps",
            )
        # DDIM goes down by this stride, whatever timesteps are listed; DDPM by the list.
        stride = train_steps // self.steps
        even = len(timesteps) == self.steps and all(a - b == stride for a, b in pairwise(timesteps))
        if self.ancestral and not even:
            raise UserError(
                f"{SCHEDULER}: its timestep_spacing is {self.scheduler.config.timestep_spacing}; ddpm is"
                " implemented for leading, which is Stable Diffusion v1.5's"
            )

    @property
    def draws(self) -> int:
        """Count the noise tensors of a latent: the one to start from and, for DDPM, one for each step."""
        return 1 + self.steps * self.ancestral

    def __call__(self, noise: Tensor, predict: Callable[[Tensor, Tensor, bool], Tensor]) -> Tensor:
        """Take the steps, and return the latents that they end at.

        Args:
            noise: (draws, N, 4, h, w) float32.
            predict: ``predict(inputs, timestep, is_first)`` gives the UNet's prediction, (N, 4, h, w).

        Returns:
            (N, 4, h, w) float32.
        """
        self.scheduler.set_timesteps(self.steps)
        timesteps = self.scheduler.timesteps
        on_device = send(timesteps, noise.device).unbind()
        latents = noise[0] * self.scheduler.init_noise_sigma
        for index, timestep in enumerate(timesteps):
            inputs = self.scheduler.scale_model_input(latents, timestep)
            predicted = predict(inputs, on_device[index], index == 0).float()
            options = self._noise_options(noise[1 + index]) if self.ancestral else {}
            with torch.autocast(latents.device.type, enabled=False):  # UniPC's products would be rounded
                latents = self.scheduler.step(predicted, timestep, latents, **options).prev_sample
        return latents

    def _noise_options(self, noise: Tensor) -> dict:
        clips = self.scheduler.config.clip_sample or self.scheduler.config.thresholding
        # DDPM goes on from the clipped clean latent; recomputing its noise is what that comes to in DDIM.
        return {"eta": 1.0, "variance_noise": noise, "use_clipped_model_output": clips}


def clean_latents(kind: str, predicted: Tensor, noisy: Tensor, kept: Tensor) -> Tensor:
    """Return the clean latents that a prediction stands for.

    Args:
        kind: what is predicted: epsilon, sample or v_prediction (diffusers' names).
        predicted: (N, 4, h, w).
        noisy: (N, 4, h, w) the UNet's input.
        kept: the timestep's cumulative product of 1 - beta, a scalar.
    """
    if kind == "sample":
        return predicted
    if kind == "v_prediction":
        return kept.sqrt() * noisy - (1 - kept).sqrt() * predicted
    return (noisy - (1 - kept).sqrt() * predicted) / kept.sqrt()
