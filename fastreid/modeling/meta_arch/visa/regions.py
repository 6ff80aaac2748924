"""Local regions joined by graphs: ViSA's dual-branch local fusion."""

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn


class RegionGraph(nn.Module):
    """Joins each semantic query with the patches that are most similar to a token, by a graph convolution.

    A query's graph has the query and `top_k` patches as nodes. Between two nodes there is the cosine between
    them where it is positive, and each node has a loop of weight 1 besides. The adjacency is normalised
    symmetrically (Kipf and Welling, ICLR 2017, eq. 2); of the convolution the query's row alone is computed.
    No gradient flows into nodes and edges: a query learns by the sum with what its graph adds, see `forward`.

    Args:
        width: D.
        top_k: patches in a graph.
    """

    def __init__(self, width: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.convolution = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, token: Tensor, patches: Tensor) -> Tensor:
        """Map queries (B, M, D), a token (B, D) and patches (B, N, D), N at least `top_k`, to (B, M, D)."""
        with torch.no_grad(), torch.autocast(token.device.type, enabled=False):
            regions = nearest(token.float(), patches.float(), self.top_k)
            gathered = neighbourhood(queries.float(), regions)
        return queries + self.norm(torch.tanh(self.convolution(gathered)))


def nearest(token: Tensor, patches: Tensor, count: int) -> Tensor:
    """Return the patches of (B, N, D) with the greatest cosines to the token (B, D): (B, count, D)."""
    cosines = (F.normalize(patches, dim=-1) @ F.normalize(token, dim=-1)[..., None]).squeeze(-1)
    chosen = cosines.topk(count, dim=1).indices
    return patches.gather(1, chosen[..., None].expand(-1, -1, patches.shape[-1]))


def neighbourhood(queries: Tensor, regions: Tensor) -> Tensor:
    """Sum up each query's graph by the query's row of the normalised adjacency.

    The edges between regions are the same in all graphs of an image, so they are computed once.

    Args:
        queries: (B, M, D).
        regions: (B, K, D), nodes of the graph of each query.

    Returns:
        (B, M, D).
    """
    directions, centers = F.normalize(regions, dim=-1), F.normalize(queries, dim=-1)
    between = (directions @ directions.mT).clamp(min=0).sum(dim=-1)  # (B, K)
    edges = (centers @ directions.mT).clamp(min=0)  # (B, M, K)
    degrees = between[:, None] + edges + 1  # of regions, (B, M, K)
    loop = 2.0  # a node's cosine to itself, and the loop of weight 1
    degree = edges.sum(dim=-1, keepdim=True) + loop  # of queries, (B, M, 1)
    return loop * queries / degree + (edges / (degrees * degree).sqrt()) @ regions


class Fusion(nn.Module):
    """Reads one feature out of a set of tokens: a transformer block, with norms behind the sums, and a token.

    Args:
        width: D.
        num_heads: of the attention; divides D.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, 1, width))
        nn.init.trunc_normal_(self.token, std=0.02)
        self.attn = Attention(width, num_heads)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) to (B, D)."""
        tokens = torch.cat([self.token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        feature = self.norm1((tokens + self.attn(tokens))[:, 0])
        return self.norm2(feature + self.mlp(feature))
