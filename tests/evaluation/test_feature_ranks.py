"""`evaluate_features` against distances in float64, sorted."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracles import Problem, clustered_features, float64_distances, problems, rank_by_sorting

from fastreid.evaluation import compute_distance, evaluate_features, evaluate_rank

METRICS = ["cosine", "euclidean"]


def assert_same(actual, expected):
    for name, a, e in zip(("cmc", "AP", "INP"), actual, expected, strict=True):
        np.testing.assert_allclose(a, e, atol=1e-12, err_msg=name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("metric", METRICS)
def test_equals_sorted_distances_for_every_block(use_cython, metric, data):
    """Small whole numbers make many ties, parallel and zero features; random ones with doubles make few."""
    problem = data.draw(problems(max_queries=8, max_gallery=30))
    assume(problem.has_match)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    width, num_g = data.draw(st.integers(1, 20)), len(problem.g_pids)
    q_feats = rng.normal(size=(len(problem.q_pids), width)).astype(np.float32)
    g_feats = rng.normal(size=(num_g, width)).astype(np.float32)[rng.integers(0, num_g, num_g)]
    if data.draw(st.booleans()):
        q_feats, g_feats = q_feats.round(), g_feats.round()
    expected = rank_by_sorting(float64_distances(q_feats, g_feats, metric), problem)
    block = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 40))
    actual = evaluate_features(q_feats, g_feats, *problem, metric, use_cython=use_cython, block=block)
    assert_same(actual, expected)


@pytest.mark.parametrize("metric", METRICS)
def test_equals_the_matrix_for_every_block(use_cython, metric):
    rng = np.random.default_rng(0)
    features, pids = clustered_features(rng, 260, 20, 64, 1.5)
    camids = rng.integers(0, 3, 260)
    problem = Problem(pids[:60], pids[60:], camids[:60], camids[60:])
    q_feats, g_feats = torch.from_numpy(features[:60]), torch.from_numpy(features[60:])
    expected = evaluate_rank(compute_distance(q_feats, g_feats, metric), *problem, use_cython=use_cython)
    assert 0.2 < expected[1].mean() < 0.9
    for block in [(1, 7), (7, 1), (13, 64), (60, 200), (1024, 4096)]:
        actual = evaluate_features(q_feats, g_feats, *problem, metric, use_cython=use_cython, block=block)
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize("metric", METRICS)
def test_items_closer_than_float32_can_tell_are_in_order(use_cython, metric):
    """Items 2e-8 or more apart around one distance; each is the match of one of as many equal queries."""
    rng = np.random.default_rng(2)
    query = rng.normal(size=512)
    query /= np.linalg.norm(query)
    across = rng.normal(size=(4000, 512))
    across -= (across @ query)[:, None] * query
    across *= (1 + 3e-6 * rng.normal(size=(4000, 1))) / np.linalg.norm(across, axis=1, keepdims=True)
    q_feats, g_feats = query.astype(np.float32)[None], (query + across).astype(np.float32)
    steps = (float64_distances(q_feats, g_feats, metric)[0] / 2e-8).astype(int)
    apart = [items[0] for step in np.unique(steps)[::2] for items in [np.flatnonzero(steps == step)]]
    g_feats, number = g_feats[np.sort(apart)], len(apart)
    assert number > 100
    labels = np.arange(number), np.arange(number), np.zeros(number, int), np.ones(number, int)
    q_feats = np.repeat(q_feats, number, axis=0)

    in_order = np.argsort(np.argsort(float64_distances(q_feats[:1], g_feats, metric)[0]))
    _, ap, _ = evaluate_features(q_feats, g_feats, *labels, metric, use_cython=use_cython)
    np.testing.assert_allclose(ap, 1 / (in_order + 1))
    in_float32 = compute_distance(torch.from_numpy(q_feats), torch.from_numpy(g_feats), metric)
    assert not np.allclose(evaluate_rank(in_float32, *labels)[1], ap)


def test_lower_matmul_precision_of_the_caller_changes_nothing(use_cython):
    rng = np.random.default_rng(5)
    features, pids = clustered_features(rng, 150, 8, 256, 4)
    problem = Problem(pids[:30], pids[30:], np.zeros(30, int), np.ones(120, int))
    before = evaluate_features(features[:30], features[30:], *problem, use_cython=use_cython)
    torch.set_float32_matmul_precision("medium")
    try:
        after = evaluate_features(features[:30], features[30:], *problem, use_cython=use_cython)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert_same(after, before)


@pytest.mark.parametrize("size", [1e-25, 1e-12, 1e6, 1e17])
@pytest.mark.parametrize("metric", METRICS)
def test_tiny_and_large_features(use_cython, metric, size):
    rng = np.random.default_rng(6)
    features, pids = clustered_features(rng, 90, 6, 12, 1)
    problem = Problem(pids[:30], pids[30:], np.zeros(30, int), np.ones(60, int))
    scaled = features * np.float32(size)
    exact = scaled.astype(np.float64) / size
    if metric == "cosine" and size < 1e-12:
        exact *= size  # below the floor of the norm the features are not scaled to length 1
        distances = -(exact[:30] @ exact[30:].T)
    else:
        distances = float64_distances(exact[:30], exact[30:], metric)
    actual = evaluate_features(scaled[:30], scaled[30:], *problem, metric, use_cython=use_cython)
    assert_same(actual, rank_by_sorting(distances, problem))


FEATURES = np.eye(3, dtype=np.float32)
NAN, INFINITE = FEATURES.copy(), FEATURES.copy()
NAN[2, 0], INFINITE[1, 1] = np.nan, np.inf


@pytest.mark.parametrize(
    ("q_feats", "g_feats", "metric", "message"),
    [
        (FEATURES.astype(np.float64), FEATURES, "cosine", "float32"),
        (FEATURES[0], FEATURES, "cosine", "matrices"),
        (FEATURES[:, :2], FEATURES, "cosine", "width: 2 and 3"),
        (FEATURES, FEATURES, "manhattan", "cosine, euclidean"),
        (NAN, FEATURES, "cosine", "q_feats holds NaN or infinity.*row 2"),
        (FEATURES, INFINITE, "cosine", "g_feats holds NaN or infinity.*row 1"),
        (FEATURES * np.float32(1e20), FEATURES * np.float32(1e20), "euclidean", "overflow"),
    ],
)
def test_bad_features_are_named(use_cython, q_feats, g_feats, metric, message):
    labels = [1, 2, 3], [1, 2, 3], [0, 0, 0], [1, 1, 1]
    with pytest.raises(ValueError, match=message):
        evaluate_features(q_feats, g_feats, *labels, metric, use_cython=use_cython)


@pytest.mark.parametrize(("num_q", "num_g"), [(0, 3), (3, 0), (0, 0)])
def test_no_queries_or_no_gallery_is_an_error(use_cython, num_q, num_g):
    labels = np.arange(num_q), np.arange(num_g), np.zeros(num_q, int), np.ones(num_g, int)
    with pytest.raises(ValueError, match="no query has a match"):
        evaluate_features(FEATURES[:num_q], FEATURES[:num_g], *labels, use_cython=use_cython)
