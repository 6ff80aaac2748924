"""One running mean of the view tokens per view: the view prototypes (SD-ReID, Stage 1)."""

import torch
from torch import Tensor, nn

from fastreid.utils import comm


class MemoryBank(nn.Module):
    """Exponential moving average of each view's tokens, equal on all ranks and saved with the model.

    ``bank[v] <- momentum * mean(tokens of view v) + (1 - momentum) * bank[v]``; the first batch that
    holds a view initialises it.
    """

    def __init__(self, num_views: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("prototypes", torch.zeros(num_views, dim))
        self.register_buffer("seen", torch.zeros(num_views, dtype=torch.bool))

    @torch.no_grad()
    def update(self, tokens: Tensor, views: Tensor) -> None:
        """Take in one batch.

        Args:
            tokens: (B, D) view tokens of this rank's images; the means are over all ranks' images.
            views: (B,) int64 view ids.
        """
        members = nn.functional.one_hot(views, len(self.prototypes)).float()
        # No matrix product: autocast would round it, and the ones appended to the tokens count the images.
        tokens = nn.functional.pad(tokens.float(), (0, 1), value=1.0)
        sums = comm.all_reduce_sum((members[:, :, None] * tokens[:, None]).sum(0))
        counts = sums[:, -1:]
        means = sums[:, :-1] / counts.clamp(min=1)

        blended = self.momentum * means + (1 - self.momentum) * self.prototypes
        updated = torch.where(self.seen[:, None], blended, means)
        present = counts > 0
        self.prototypes.copy_(torch.where(present, updated, self.prototypes))
        self.seen.logical_or_(present[:, 0])
