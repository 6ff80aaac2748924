"""Features on a plane: principal components or t-SNE."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from fastreid.data import Sample
from fastreid.evaluation.distance import METRIC_REGISTRY

METHODS = {"tsne": "t-SNE", "pca": "PCA"}
TSNE_WIDTH = 50  # principal components that t-SNE starts from, as its authors advise
PERPLEXITY = 30.0


class FeatureMap(NamedTuple):
    """M of the images, each a point."""

    method: str  # as in METHODS
    samples: list[Sample]
    points: np.ndarray  # (M, 2) float64


def map_features(
    features: torch.Tensor, samples: Sequence[Sample], method: str, count: int, metric: str, seed: int
) -> FeatureMap:
    """Place `count` images, drawn at random, so that near features lie near each other.

    Args:
        features: (N, D) float32, of `samples`.
        method: ``pca``, or ``tsne`` (van der Maaten and Hinton, JMLR 2008).
        count: at most this many images.
        metric: a registered one, which prepares the features first; ``cosine`` scales them to length 1.
        seed: fixes the draw and t-SNE.
    """
    count = min(count, len(samples))
    rows = np.sort(np.random.default_rng(seed).permutation(len(samples))[:count])
    chosen = features[torch.from_numpy(rows)]
    chosen = METRIC_REGISTRY.get(metric)().prepare(chosen).double().numpy()
    if method == "pca" or count < 4:  # t-SNE needs neighbours
        points = _principal_components(chosen, 2)
        method = "pca"
    else:
        perplexity = min(PERPLEXITY, (count - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
        points = tsne.fit_transform(_principal_components(chosen, TSNE_WIDTH))
    return FeatureMap(method, [samples[row] for row in rows], points.astype(np.float64))


def _principal_components(features: np.ndarray, width: int) -> np.ndarray:
    """(M, width), with zeros where there are fewer components."""
    width_found = min(width, *features.shape)
    found = PCA(width_found, svd_solver="full").fit_transform(features)
    return np.pad(found, ((0, 0), (0, width - width_found)))
