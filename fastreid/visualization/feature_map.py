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
    """Place the images of persons drawn at random so that near features lie near each other.

    Args:
        features: (N, D) float32, of `samples`.
        method: ``pca``, or ``tsne`` (van der Maaten and Hinton, JMLR 2008).
        count: at most this many images; of the last person drawn perhaps not all.
        metric: a registered one, which prepares the features first; ``cosine`` scales them to length 1.
        seed: fixes the draw and t-SNE.
    """
    count = min(count, len(samples))
    rows = _draw_persons(np.array([sample.pid for sample in samples]), count, seed)
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


def _draw_persons(pids: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw the images of whole persons, in ascending order; nobody's come last."""
    generator = np.random.default_rng(seed)
    persons = generator.permutation(np.unique(pids[pids >= 0]))
    turn = dict(zip(persons.tolist(), range(len(persons)), strict=True))
    turns = np.array([turn.get(pid, len(persons)) for pid in pids.tolist()])
    mixed = generator.permutation(len(pids))
    return np.sort(mixed[np.argsort(turns[mixed], kind="stable")][:count])


def _principal_components(features: np.ndarray, width: int) -> np.ndarray:
    """(M, width), with zeros where there are fewer components."""
    width_found = min(width, *features.shape)
    found = PCA(width_found, svd_solver="full").fit_transform(features)
    return np.pad(found, ((0, 0), (0, width - width_found)))
