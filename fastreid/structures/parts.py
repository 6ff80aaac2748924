"""Parts of a model that become files of their own."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor, nn

Tensors: TypeAlias = dict[str, Tensor]


class ExportPart(NamedTuple):
    """A module that becomes a file."""

    name: str
    module: nn.Module
    outputs: tuple[str, ...]
    draw_inputs: Callable[[int], Tensors]
    """Inputs for a batch size, by name. The first dimension is the batch, but of scalars."""
    max_batch: int | None = None
    """Largest batch that ``torch.export`` may assume; None: any."""
