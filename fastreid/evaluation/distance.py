"""Distances between features."""

from collections.abc import Iterator

import numpy as np
import torch

METRICS = ("cosine", "euclidean")
BLOCK_ROWS = 8192  # gallery rows of a block: 25 MB of 768-wide features
BLOCK_ELEMENTS = 1 << 26  # distances of a block of queries: 256 MB


def normalise(features: torch.Tensor) -> torch.Tensor:
    """The rows of (N, D) scaled to length 1; a zero row stays zero."""
    return torch.nn.functional.normalize(features, dim=1)


def compute_distance(q_feats: torch.Tensor, g_feats: torch.Tensor, metric: str = "cosine") -> torch.Tensor:
    """(Q, D) x (G, D) float32 -> (Q, G) distances on the features' device.

    ``cosine`` is 1 - cosine similarity, ``euclidean`` the Euclidean distance of the features as they are.

    Raises:
        ValueError: for any other metric.
    """
    check_metric(metric)
    if metric == "cosine":
        return 1 - normalise(q_feats) @ normalise(g_feats).T
    squared = torch.addmm(g_feats.square().sum(1), q_feats, g_feats.T, alpha=-2)
    squared += q_feats.square().sum(1, keepdim=True)
    return squared.clamp_(min=0).sqrt_()


def distance_rows(
    q_feats: torch.Tensor, g_feats: torch.Tensor, metric: str = "cosine"
) -> Iterator[tuple[slice, np.ndarray]]:
    """The distance matrix in blocks of whole rows: ``(rows, (len(rows), G) float32)``.

    The array is reused by the next block.
    """
    num_queries, num_gallery = len(q_feats), len(g_feats)
    height = max(1, min(num_queries, BLOCK_ELEMENTS // max(num_gallery, 1)))
    block = torch.empty(height, num_gallery)
    for top in range(0, num_queries, height):
        queries = q_feats[top : top + height]
        for left in range(0, num_gallery, BLOCK_ROWS):
            columns = slice(left, left + BLOCK_ROWS)
            block[: len(queries), columns] = compute_distance(queries, g_feats[columns], metric)
        yield slice(top, top + len(queries)), block[: len(queries)].numpy()


def check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
