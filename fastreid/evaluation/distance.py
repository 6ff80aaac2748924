"""Distances between features. A new one is a `Metric` in the registry."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from fastreid.evaluation.rerank import jaccard_distance, rerank_distance
from fastreid.utils.registry import Registry

BLOCK_ROWS = 8192  # gallery rows of a block: 25 MB of 768-wide features
BLOCK_ELEMENTS = 1 << 26  # distances of a block of queries: 256 MB
NORM_FLOOR = 1e-12  # a shorter feature is not scaled to length 1, as in torch.nn.functional.normalize


class Metric:
    """A distance of features; a new one must give `distances` alone.

    Attributes:
        whole: a distance depends on all images: `matrix` gives it, `distances` does not.
        product_form: from the squared lengths of the gallery's features, (G,) float64, the scale and the
            bias, (G,) float64 each, with which ``scale[j] * (q . g[j]) + bias[j]`` ranks the gallery of a
            query as the distances do. Ranks are then fast, and exact to nine digits. None: there is none.
    """

    whole = False
    product_form: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None

    def distances(self, q_feats: Tensor, g_feats: Tensor) -> Tensor:
        """(Q, D) x (G, D) float32 -> (Q, G) float32, on their device, of any part of queries and gallery."""
        raise NotImplementedError

    def prepare(self, features: Tensor) -> Tensor:
        """Give the features (N, D) between which re-ranking takes Euclidean distances."""
        return features

    def matrix(self, q_feats: Tensor, g_feats: Tensor, k1: int, k2: int, lambda_value: float) -> np.ndarray:
        """Give the whole re-ranked matrix, (Q, G) float32; see `rerank_distance`."""
        return rerank_distance(self.prepare(q_feats), self.prepare(g_feats), k1, k2, lambda_value)


def _lacks(entry: object) -> str:
    return "" if isinstance(entry, type) and issubclass(entry, Metric) else "it is no subclass of Metric"


METRIC_REGISTRY = Registry("metric", "TEST.METRIC", _lacks)


def normalise(features: Tensor) -> Tensor:
    """Scale the rows of (N, D) to length 1; a zero row stays zero."""
    return torch.nn.functional.normalize(features, dim=1)


@METRIC_REGISTRY.register("cosine")
class Cosine(Metric):
    """1 - cosine similarity."""

    def distances(self, q_feats: Tensor, g_feats: Tensor) -> Tensor:
        return 1 - normalise(q_feats) @ normalise(g_feats).T

    def product_form(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # minus the similarity times the query's length
        return -1 / np.maximum(np.sqrt(squares), NORM_FLOOR), np.zeros(len(squares))

    def prepare(self, features: Tensor) -> Tensor:
        return normalise(features)


@METRIC_REGISTRY.register("euclidean")
class Euclidean(Metric):
    """The Euclidean distance of the features as they are."""

    def distances(self, q_feats: Tensor, g_feats: Tensor) -> Tensor:
        squared = torch.addmm(g_feats.square().sum(1), q_feats, g_feats.T, alpha=-2)
        squared += q_feats.square().sum(1, keepdim=True)
        return squared.clamp_(min=0).sqrt_()

    def product_form(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # the squared distance less the query's square
        return np.full(len(squares), -2.0), squares


@METRIC_REGISTRY.register("jaccard")
class Jaccard(Metric):
    """The Jaccard distance of neighbourhoods, which re-ranking mixes with another distance, by itself."""

    whole = True

    def matrix(self, q_feats: Tensor, g_feats: Tensor, k1: int, k2: int, lambda_value: float) -> np.ndarray:
        return jaccard_distance(normalise(q_feats), normalise(g_feats), k1, k2)


def metric_of_pairs(name: str) -> Metric:
    """Return the metric of that name. Raises ValueError if there is none, or it needs all images."""
    known = [known for known in METRIC_REGISTRY if not METRIC_REGISTRY.get(known).whole]
    if name not in known:
        raise ValueError(f"metric must be one of {', '.join(known)}, got {name!r}")
    return METRIC_REGISTRY.get(name)()


def compute_distance(q_feats: Tensor, g_feats: Tensor, metric: str = "cosine") -> Tensor:
    """(Q, D) x (G, D) float32 -> (Q, G) distances on the features' device.

    ``cosine`` is 1 - cosine similarity, ``euclidean`` the Euclidean distance of the features as they are.

    Raises:
        ValueError: for an unknown metric, and one whose distances need all images.
    """
    return metric_of_pairs(metric).distances(q_feats, g_feats)


def distance_rows(
    q_feats: Tensor, g_feats: Tensor, metric: str = "cosine"
) -> Iterator[tuple[slice, np.ndarray]]:
    """Make the distance matrix in blocks of whole rows: ``(rows, (len(rows), G) float32)``.

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
