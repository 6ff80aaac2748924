"""Features on a plane: near in the distances of the metric that the features are searched with."""

import numpy as np
import pytest
import torch

from fastreid.data import Sample
from fastreid.evaluation.distance import METRIC_REGISTRY, Euclidean
from fastreid.visualization.feature_map import map_features

FEATURES = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
SAMPLES = [Sample(f"{number}.jpg", number % 3, 0, number % 2) for number in range(12)]


def points(metric: str, features: torch.Tensor = FEATURES) -> np.ndarray:
    return map_features(features, SAMPLES, "pca", 12, metric, seed=0).points


def test_lengths_count_where_they_count_in_the_metric():
    longer = FEATURES * torch.arange(1, 13)[:, None]
    np.testing.assert_allclose(points("cosine", longer), points("cosine"), atol=1e-5)
    assert not np.allclose(points("euclidean", longer), points("euclidean"), atol=0.1)


@pytest.mark.usefixtures("own_names")
def test_a_metric_of_ones_own_prepares_the_features():
    @METRIC_REGISTRY.register("first two")
    class FirstTwo(Euclidean):
        def prepare(self, features):
            return features[:, :2]

    np.testing.assert_allclose(points("first two"), points("euclidean", FEATURES[:, :2]))


def test_whole_persons_are_drawn_and_nobody_last():
    samples = [Sample(f"{number}.jpg", number % 5 - 1, 0, 0) for number in range(40)]
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    for count, persons in ((16, 2), (32, 4)):
        shown = map_features(features, samples, "pca", count, "cosine", seed=3).samples
        pids = [sample.pid for sample in shown]
        assert len(shown) == count
        assert {pids.count(pid) for pid in pids} == {8}
        assert len(set(pids) - {-1}) == persons
