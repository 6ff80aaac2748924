"""What no step of the sampler changes is computed once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from diffusers import UNet2DConditionModel
from torch import Tensor, nn


@contextmanager
def constant_conditions(unet: UNet2DConditionModel, context: Tensor) -> Iterator[None]:
    """Inside the block every call of `unet` is for `context`, or the last rows of it, and one timestep.

    The keys and values of the cross-attentions are then computed in the first call alone. The time embedding,
    with what the residual blocks make of it, is computed for one row and not for the whole batch.

    Args:
        context: (N, L, D), what ``encoder_hidden_states`` will be.
    """
    attentions = [module for name, module in unet.named_modules() if name.endswith("attn2")]
    projections = [projection for module in attentions for projection in (module.to_k, module.to_v)]
    embed = unet.time_embedding.forward
    changed = [*projections, unet.time_embedding]
    try:
        # On the module itself, `forward` hides that of its class until it is deleted.
        for projection in projections:
            projection.forward = _projected_once(projection, context)
        unet.time_embedding.forward = lambda sample, condition=None: embed(sample[:1], condition)
        yield
    finally:
        for module in changed:
            vars(module).pop("forward", None)


def _projected_once(projection: nn.Module, context: Tensor) -> Callable[[Tensor], Tensor]:
    project = projection.forward

    @cache
    def projected() -> Tensor:
        return project(context)

    return lambda rows: projected()[-len(rows) :]
