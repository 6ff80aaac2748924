"""Experts that make semantic queries: ViSA's expert-driven token generation."""

from typing import NamedTuple

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn


class QueryExpert(nn.Module):
    """Makes M semantic queries: learned prompts that take up one token of an image.

    The prompts attend to the token, then to each other, and pass an MLP, each with a norm behind the sum.
    Attention to one key alone is that key's value, whatever is asked: so there are no projections of queries
    and keys here.

    Args:
        width: D.
        num_heads: of the prompts' attention to each other; divides D.
        length: M.
    """

    def __init__(self, width: int, num_heads: int, length: int) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.empty(1, length, width))
        nn.init.trunc_normal_(self.prompt, std=0.02)
        self.value, self.projection = nn.Linear(width, width), nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 2 * width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, token: Tensor) -> Tensor:
        """Map (B, D) to (B, M, D)."""
        queries = self.norm1(self.prompt + self.projection(self.value(token))[:, None])
        queries = self.norm2(queries + self.attn(queries))
        return self.norm3(queries + self.mlp(queries))


class Queries(NamedTuple):
    """The queries of B images, by a mixture of experts."""

    queries: Tensor
    """(B, M, D)."""
    imbalance: Tensor
    """A scalar: E times the sum of the experts' squared mean probabilities; 1 where all are equal."""


class ExpertMixture(nn.Module):
    """A router that gives a token to the `top_k` of E experts, and joins their queries.

    All experts compute all images, and those that were not chosen have weight 0: an image's queries do not
    depend on its batch, no number leaves the device, and every parameter has a gradient in each process.

    Args:
        width, num_heads, length: as in `QueryExpert`.
        count: E.
        top_k: experts for an image.
    """

    def __init__(self, width: int, num_heads: int, length: int, count: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.gate = nn.Linear(width, count)
        self.experts = nn.ModuleList(QueryExpert(width, num_heads, length) for _ in range(count))

    def forward(self, token: Tensor, members: Tensor) -> Queries:
        """Map (B, D) to queries; those of images that are no `members` (B,) bool are 0 and do not count."""
        with torch.autocast(token.device.type, enabled=False):  # which experts is no matter of rounding
            logits = self.gate(token.float())
        best, chosen = logits.topk(self.top_k, dim=1)
        weights = torch.zeros_like(logits).scatter(1, chosen, best.softmax(dim=1)) * members[:, None]
        queries = sum(
            weight[:, None, None] * expert(token)
            for weight, expert in zip(weights.unbind(1), self.experts, strict=True)
        )
        probabilities = logits.softmax(dim=1) * members[:, None]
        mean = probabilities.sum(dim=0) / members.sum().clamp(min=1)
        return Queries(queries, logits.shape[1] * mean.square().sum())


class ViewExperts(nn.Module):
    """A mixture of experts for each of V views.

    Args:
        num_views: V.
        sizes: as in `ExpertMixture`.
    """

    def __init__(self, num_views: int, **sizes: int) -> None:
        super().__init__()
        self.views = nn.ModuleList(ExpertMixture(**sizes) for _ in range(num_views))

    def forward(self, token: Tensor, views: Tensor) -> Queries:
        """Map (B, D) of the views (B,) int64 to queries; the imbalance is the mean over the images."""
        queries, imbalance = 0, 0
        for view, mixture in enumerate(self.views):
            members = views == view
            made = mixture(token, members)
            queries = queries + made.queries
            imbalance = imbalance + members.float().mean() * made.imbalance
        return Queries(queries, imbalance)
