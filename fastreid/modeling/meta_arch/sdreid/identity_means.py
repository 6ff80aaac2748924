"""The mean feature of every training identity in every view (``MODEL.SDMODEL.TARGET identity_mean``)."""

import torch
from torch import Tensor, nn


class IdentityMeans(nn.Module):
    """A table of mean features over the training set, of its images as they are, saved with the model.

    A batch has one or two images of an identity in a view, and their mean still has most of what is one
    image's alone. The encoder is frozen, so the mean over the training set can be known once for all batches;
    it is the same with and without CACHE_FEATURES, on every rank and in a resumed run. Only training reads
    it.

    Args:
        identities, views, dim: of the table.
    """

    def __init__(self, identities: int, views: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(identities, views, dim))

    def sums(self) -> Tensor:
        """Return a table of zeros for :meth:`add`, float64 on the CPU, with a last column that counts."""
        identities, views, dim = self.means.shape
        return torch.zeros(identities * views, dim + 1, dtype=torch.float64)

    def add(self, sums: Tensor, features: Tensor, targets: Tensor, views: Tensor) -> None:
        """Add features (B, D) of identities and views (B,), all on the CPU, to `sums`, in their order."""
        rows = targets * self.means.shape[1] + views
        counted = nn.functional.pad(features.double(), (0, 1), value=1.0)
        sums.index_add_(0, rows, counted)

    def fit(self, sums: Tensor) -> None:
        """Set the means; those of an identity in a view that it has no image of are zero."""
        means = sums[:, :-1] / sums[:, -1:].clamp(min=1)
        self.means.copy_(means.unflatten(0, self.means.shape[:2]))

    def forward(self, targets: Tensor, views: Tensor) -> Tensor:
        """Return the means (B, D) of identities in views (B,)."""
        return self.means[targets, views]
