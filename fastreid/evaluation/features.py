"""Rank evaluation straight from features, without the query x gallery matrix."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from fastreid.evaluation.distance import Metric, distance_rows, metric_of_pairs
from fastreid.evaluation.rank import (
    Labels,
    QueryScores,
    check_labels,
    check_max_rank,
    rank_kernels,
    rank_matrix,
)
from fastreid.utils.env import exact_float32, send

QUERY_BLOCK = 1024
GALLERY_BLOCK = 4096
MARKS_PER_BLOCK = 1 << 22  # same-person pairs of a block of queries: at most 400 MB of them in the kernel


def evaluate_features(
    q_feats: Any,
    g_feats: Any,
    q_pids: Any,
    g_pids: Any,
    q_camids: Any,
    g_camids: Any,
    metric: str = "cosine",
    max_rank: int = 50,
    use_cython: bool = True,
    device: torch.device | str | None = None,
    block: tuple[int, int] = (QUERY_BLOCK, GALLERY_BLOCK),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score the features' distances as `evaluate_rank` does, in memory that does not grow with Q x G.

    Products are made in float32, block by block. A gallery item that is as near as one of the query's
    person, to within the products' rounding error, is compared again in float64. So the ranks are those of
    the distances to nine digits, whatever the block, the device and the number of threads; equal features
    are equally far, and ordered by gallery index. (A float32 distance matrix may order neighbours that
    differ in the seventh digit otherwise.)

    Args:
        q_feats, g_feats: (Q, D) and (G, D) float32 arrays or tensors.
        q_pids, g_pids, q_camids, g_camids, max_rank, use_cython: as in `evaluate_rank`.
        metric: ``cosine``, ``euclidean``, or a registered one that does not need all images at once. One
            without a product form is ranked by its float32 distances.
        device: where products are made; default: where `g_feats` is.
        block: how many queries and gallery items a product has.

    Returns:
        ``(cmc, all_AP, all_INP)`` as `evaluate_rank`.

    Raises:
        ValueError: for features that are no float32 matrices of one width, not finite, or so large that
            their products overflow; for an unknown metric; and where `evaluate_rank` raises it.
    """
    check_max_rank(max_rank)
    q_feats, g_feats = torch.as_tensor(q_feats), torch.as_tensor(g_feats)
    labels = check_labels(len(q_feats), len(g_feats), q_pids, g_pids, q_camids, g_camids)
    scores = rank_features(q_feats, g_feats, labels, metric, use_cython, device, block)
    return scores.summarise(max_rank, len(g_feats))


def rank_features(
    q_feats: torch.Tensor,
    g_feats: torch.Tensor,
    labels: Labels,
    metric: str = "cosine",
    use_cython: bool = True,
    device: torch.device | str | None = None,
    block: tuple[int, int] = (QUERY_BLOCK, GALLERY_BLOCK),
) -> QueryScores:
    """Score every query; arguments and errors as in `evaluate_features`."""
    measure = metric_of_pairs(metric)
    _check_features(q_feats, g_feats)
    device = torch.device(g_feats.device if device is None else device)
    if measure.product_form is None:
        on_device = (features.detach().to(device) for features in (q_feats, g_feats))
        return _rank_rows(*on_device, labels, metric, use_cython)
    gallery = _Gallery(g_feats.detach(), measure, device, block[1])
    ranker_class = rank_kernels(use_cython).BlockRanker
    scores = QueryScores.empty(len(q_feats))
    most_marks = int((labels.stops - labels.starts).max(initial=1))
    height = max(1, min(block[0], MARKS_PER_BLOCK // most_marks))
    with exact_float32():
        for top in range(0, len(q_feats), height):
            rows = slice(top, top + height)
            queries = q_feats[rows].detach().cpu().contiguous()
            ranker = ranker_class(
                queries.numpy(),
                gallery.on_cpu,
                gallery.scale,
                gallery.bias,
                *gallery.precision(queries.numpy()),
                labels.members,
                labels.starts[rows],
                labels.stops[rows],
                labels.q_camids[rows],
                labels.g_camids,
                torch.get_num_threads(),
            )
            for offset, distances in gallery.distance_blocks(queries):
                ranker.count(distances, offset)
            ranker.score(*(array[rows] for array in scores))
    return scores


def _rank_rows(
    q_feats: torch.Tensor, g_feats: torch.Tensor, labels: Labels, metric: str, use_cython: bool
) -> QueryScores:
    scores = QueryScores.empty(len(q_feats))
    with exact_float32():
        for rows, distances in distance_rows(q_feats, g_feats, metric):
            part = rank_matrix(distances, labels.of_queries(rows), use_cython)
            for values, part_values in zip(scores, part, strict=True):
                values[rows] = part_values
    return scores


class _Gallery:
    """Gallery features with what turns a product into a distance: ``scale[j] * (q . g[j]) + bias[j]``."""

    def __init__(self, features: torch.Tensor, metric: Metric, device: torch.device, width: int) -> None:
        self.features = features.contiguous()
        self.on_cpu = self.features.cpu().numpy()
        self.device = device
        self.width = max(1, min(width, len(features)))
        squares = _squared_lengths(self.on_cpu, "g_feats")
        self.scale, self.bias = metric.product_form(squares)
        self.longest = np.max(np.abs(self.scale) * np.sqrt(squares), initial=0)
        self.largest_bias = self.bias.max(initial=0)

    def precision(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(Q,) float64 twice: how far a float32 distance can be from the exact one, and the exact one's grid.

        The first is the bound for a sum in any order (Higham, Accuracy and Stability of Numerical
        Algorithms, section 3.1), with room for the rounding of scale and bias, for products below float32's
        range, and for the grid. The second is a power of two about 1e-9 of the largest distance: distances
        that are equal but for float64's rounding are equal on it.
        """
        magnitude = np.sqrt(_squared_lengths(queries, "q_feats")) * self.longest + self.largest_bias
        limits = np.finfo(np.float32)
        if magnitude.max(initial=0) > limits.max / 8:
            raise ValueError("the features are so large that their products overflow: scale them down")
        terms = queries.shape[1] + 16
        tolerance = terms * (limits.eps / 2 * magnitude + limits.tiny)
        return tolerance, np.ldexp(1.0, np.frexp(magnitude)[1] - 30)

    def distance_blocks(self, queries: torch.Tensor) -> Iterator[tuple[int, np.ndarray]]:
        """``(offset, (Q, n) float32 distances)`` to n gallery items from `offset` on.

        The next block is written over the one before.
        """
        queries = send(queries, self.device)
        room = torch.empty(len(queries) * self.width, device=self.device)
        weighted_room = torch.empty(self.width, queries.shape[1], device=self.device)
        for offset in range(0, len(self.features), self.width):
            columns = slice(offset, offset + self.width)
            part = self.features[columns].to(self.device, non_blocking=True)
            scale = self._sent(self.scale[columns])
            weighted = torch.mul(part, scale[:, None], out=weighted_room[: len(part)])
            distances = room[: len(queries) * len(part)].view(len(queries), len(part))
            if self.largest_bias:
                bias = self._sent(self.bias[columns])
                torch.addmm(bias, queries, weighted.T, out=distances)
            else:
                torch.mm(queries, weighted.T, out=distances)
            yield offset, distances.cpu().numpy()

    def _sent(self, values: np.ndarray) -> torch.Tensor:
        return send(torch.from_numpy(values).float(), self.device)


def _check_features(q_feats: torch.Tensor, g_feats: torch.Tensor) -> None:
    shapes = q_feats.shape, g_feats.shape
    if any(features.dtype != torch.float32 or features.ndim != 2 for features in (q_feats, g_feats)):
        raise ValueError(
            f"features must be float32 matrices, got {q_feats.dtype} {tuple(shapes[0])} and"
            f" {g_feats.dtype} {tuple(shapes[1])}"
        )
    if shapes[0][1] != shapes[1][1]:
        raise ValueError(f"query and gallery features differ in width: {shapes[0][1]} and {shapes[1][1]}")


def _squared_lengths(features: np.ndarray, name: str) -> np.ndarray:
    """(N,) float64. Raises ValueError unless all are finite."""
    squares = np.empty(len(features))
    for start in range(0, len(features), GALLERY_BLOCK):
        part = features[start : start + GALLERY_BLOCK].astype(np.float64)
        squares[start : start + len(part)] = np.einsum("nd,nd->n", part, part)
    if not np.isfinite(squares).all():
        raise ValueError(f"{name} holds NaN or infinity, first in row {int(np.argmin(np.isfinite(squares)))}")
    return squares
