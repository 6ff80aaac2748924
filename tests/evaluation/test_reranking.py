"""Re-ranking, the Jaccard metric and query expansion against their definitions."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import clustered_features, rerank_densely

from fastreid.evaluation import expand_queries, jaccard_distance, rerank_distance


def split_clusters(seed, num_q, num_g, num_people=6, width=12):
    features, _ = clustered_features(np.random.default_rng(seed), num_q + num_g, num_people, width, 0.7)
    return torch.from_numpy(features[:num_q]), torch.from_numpy(features[num_q:])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_q=st.integers(1, 10),
    num_g=st.integers(2, 35),
    k1=st.integers(1, 50),
    k2=st.integers(1, 20),
    lambda_value=st.floats(0, 1),
)
def test_equals_the_dense_algorithm(seed, num_q, num_g, k1, k2, lambda_value):
    """For any neighbourhood sizes, larger than the data and k2 beyond k1 included."""
    q_feats, g_feats = split_clusters(seed, num_q, num_g)
    actual = rerank_distance(q_feats, g_feats, k1, k2, lambda_value)
    joined = torch.cat([q_feats, g_feats]).double().numpy()
    expected = rerank_densely(joined, num_q, k1, k2, lambda_value)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert actual.dtype == np.float32


def test_equals_the_dense_algorithm_over_several_blocks(monkeypatch):
    monkeypatch.setattr("fastreid.evaluation.rerank.BLOCK", (7, 11))
    monkeypatch.setattr("fastreid.evaluation.rerank.PAIRS", 100)
    q_feats, g_feats = split_clusters(1, 30, 120)
    joined = torch.cat([q_feats, g_feats]).double().numpy()
    expected = rerank_densely(joined, 30, 20, 6, 0.3)
    np.testing.assert_allclose(rerank_distance(q_feats, g_feats), expected, atol=1e-5)


def test_jaccard_is_re_ranking_without_the_original_distance():
    q_feats, g_feats = split_clusters(2, 10, 50)
    joined = torch.cat([q_feats, g_feats]).double().numpy()
    expected = rerank_densely(joined, 10, 8, 3, 0)
    np.testing.assert_allclose(jaccard_distance(q_feats, g_feats, 8, 3), expected, atol=1e-5)


def test_without_faiss_it_warns_once_and_gives_the_same(monkeypatch, caplog):
    features = split_clusters(1, 30, 120)
    expected = rerank_distance(*features)
    monkeypatch.setitem(sys.modules, "faiss", None)
    for _ in range(2):
        np.testing.assert_allclose(rerank_distance(*features), expected, atol=1e-5)
    (warning,) = (record.message for record in caplog.records if "faiss" in record.message)
    assert "pip install faiss-cpu" in warning


def expand_by_loops(features, times, k, alpha):
    for _ in range(times):
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        expanded = []
        for row in unit @ unit.T:
            nearest = np.argsort(-row)[:k]
            weights = np.maximum(row[nearest], 0) ** alpha
            expanded.append(sum(w * features[j] for w, j in zip(weights, nearest, strict=True)))
        features = np.array(expanded)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("times", "k", "alpha"), [(1, 5, 3.0), (2, 4, 1.5), (1, 1, 3.0), (1, 500, 0.0), (0, 5, 3.0)]
)
def test_query_expansion_is_the_weighted_mean_of_neighbours(monkeypatch, times, k, alpha):
    monkeypatch.setattr("fastreid.evaluation.query_expansion.BLOCK", 13)
    q_feats, g_feats = split_clusters(3, 12, 40)
    before = q_feats.clone()
    new_q, new_g = expand_queries(q_feats, g_feats, times, k, alpha)
    expected = expand_by_loops(torch.cat([q_feats, g_feats]).double().numpy(), times, k, alpha)
    np.testing.assert_allclose(torch.cat([new_q, new_g]), expected, atol=1e-5)
    assert len(new_q) == 12
    assert torch.equal(q_feats, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])
def test_features_without_finite_distances_are_refused(value):
    q_feats, g_feats = split_clusters(0, 3, 9)
    g_feats[4, 0] = value
    with pytest.raises(ValueError, match="finite features"):
        rerank_distance(q_feats, g_feats)
