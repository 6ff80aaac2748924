"""The generator of `SDReIDStage2AsReleased`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastreid.modeling.meta_arch.sdreid.condition_learner import ConditionLearner
from fastreid.modeling.meta_arch.sdreid.generator import FeatureGenerator
from fastreid.modeling.meta_arch.sdreid.view_refined_decoder import UNetResiduals, refined_unet
from fastreid.utils.env import send

GENERATED = 2  # views, however many there are

Predict = Callable[[Tensor, Tensor, bool], Tensor]  # see `Sampler`


class AcrossBatchLearner(ConditionLearner):
    """`ConditionLearner` whose transformer expects (L, B, D) and is given (B, L, D)."""

    def attend(self, tokens: Tensor) -> Tensor:
        """Pass tokens (B, L, D) through: each attends to those of its position in all images."""
        return super().attend(tokens.transpose(0, 1)).transpose(0, 1)


class AsReleasedGenerator(FeatureGenerator):
    """`FeatureGenerator` as the release's code computes it.

    The condition learner attends across the batch, the UNet's decoder gets no residuals, a sampling step gets
    half of the last one's, the unconditional branch of the guidance has a context of zeros, and noise comes
    from one generator, in batch order.
    """

    learner_class = AcrossBatchLearner

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Nobody reads this half; several processes would wait for its gradients.
        self.view_refined_decoder.decoder.requires_grad_(False)
        self.noise = torch.Generator()
        self.restart_noise()

    def restart_noise(self) -> None:
        """Go back to the first noise of ``MODEL.SEED``."""
        self.noise.manual_seed(self.seed)

    def residuals(self, view_tokens: Tensor) -> UNetResiduals:
        """Return the encoder's pyramid alone: the decoder looks its list up by names, and finds nothing."""
        return super().residuals(view_tokens)._replace(decoder=())

    @torch.no_grad()
    def generate(
        self, id_tokens: Tensor, prototypes: Tensor, names: Sequence[str], views: Sequence[int] | None = None
    ) -> Tensor:
        """Generate every image's feature in views 0 and 1, or in one of them.

        Args:
            id_tokens: (B, L-1, D).
            prototypes: (V, D) the memory bank.
            names: plays no part.
            views: which, in the order of the result; None: 0 and 1.

        Returns:
            (B, 2, D) float32; it depends on the batch, and on the batches since :meth:`restart_noise`.
        """
        batch = len(id_tokens)
        noise = self._draw(batch, min(GENERATED, len(prototypes)))
        latents = []
        for view in range(len(noise)) if views is None else views:
            context = self.condition_learner(id_tokens, prototypes[view].expand(batch, -1))
            residuals = self.residuals(prototypes[view][None])
            work = partial(self._sample, context, residuals, noise[view])
            latents.append(self._chunks(work, batch, 2, id_tokens.device))
        return torch.stack([self.codec.decode(latent) for latent in latents], dim=1)

    def _draw(self, batch: int, views: int) -> Tensor:
        """Draw (V, draws, B, 4, h, w) in the release's order: what each view starts from, then its steps'."""

        def draw(count: int) -> Tensor:
            return torch.randn(count, batch, *self.codec.shape, generator=self.noise)

        starts = draw(views)
        return torch.stack([torch.cat([start[None], draw(self.sampler.draws - 1)]) for start in starts])

    def _sample(self, context: Tensor, residuals: UNetResiduals, noise: Tensor, part: slice) -> Tensor:
        """Take the steps of one view for some images of the batch; `context` and `noise` are of all."""
        context = context[part]
        noise = send(noise[:, part], context.device)
        return self.sampler(noise, self._predictor(context, residuals))

    def _predictor(self, context: Tensor, residuals: UNetResiduals) -> Predict:
        """Return the guided prediction as the sampler calls it, with fewer residuals at every step."""
        both = torch.cat([torch.zeros_like(context), context])
        levels = 2 * len(residuals.encoder)  # encoder and decoder, of which a step keeps the first half

        def predict(inputs: Tensor, timestep: Tensor, is_first: bool) -> Tensor:
            nonlocal levels
            levels //= 2
            left = residuals._replace(encoder=residuals.encoder[:levels]).repeat(len(both))
            predicted = refined_unet(self.unet, torch.cat([inputs, inputs]), timestep, both, left).float()
            unconditional, conditional = predicted.chunk(2)
            return unconditional + self.guidance_scale * (conditional - unconditional)

        return predict
