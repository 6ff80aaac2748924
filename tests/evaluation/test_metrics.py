"""Metrics are registered things: a new one is a class with one method."""

import numpy as np
import pytest
import torch
from oracles import Problem, rank_by_sorting
from toy_evaluation import ToyModel, make_cfg, make_protocols

from fastreid.data import build_test_loader
from fastreid.evaluation import (
    METRIC_REGISTRY,
    Metric,
    compute_distance,
    evaluate_features,
    evaluate_protocols,
    extract_features,
)
from fastreid.evaluation.distance import distance_rows
from fastreid.utils.errors import UserError


@METRIC_REGISTRY.register("manhattan_of_this_test")
class Manhattan(Metric):
    def distances(self, q_feats, g_feats):
        return torch.cdist(q_feats, g_feats, p=1)


NAME = "manhattan_of_this_test"


def manhattan(q_feats, g_feats):
    return np.abs(q_feats[:, None].double().numpy() - g_feats[None].double().numpy()).sum(-1)


@pytest.fixture
def problem():
    """Features of whole numbers, whose float32 distances are exact, and their labels."""
    rng = np.random.default_rng(0)
    features = [torch.from_numpy(rng.integers(-9, 9, (n, 5)).astype(np.float32)) for n in (17, 60)]
    columns = [rng.integers(0, high, n) for high in (6, 3) for n in (17, 60)]
    return *features, Problem(*columns)


def test_a_metric_without_a_product_form_is_ranked_by_its_distances(problem, use_cython, monkeypatch):
    q_feats, g_feats, labels = problem
    expected = rank_by_sorting(manhattan(q_feats, g_feats), labels)
    monkeypatch.setattr("fastreid.evaluation.distance.BLOCK_ELEMENTS", 4 * 60)  # blocks of four queries
    found = evaluate_features(q_feats, g_feats, *labels, metric=NAME, use_cython=use_cython)
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-12)
    blocks = {rows.start: distances.copy() for rows, distances in distance_rows(q_feats, g_feats, NAME)}
    assert list(blocks) == [0, 4, 8, 12, 16]
    np.testing.assert_array_equal(np.concatenate(list(blocks.values())), manhattan(q_feats, g_feats))


def test_a_run_takes_it_by_its_name(tmp_path):
    cfg, (protocol, _) = make_cfg(tmp_path), make_protocols(tmp_path)
    cfg.TEST.METRIC, cfg.TEST.ROC.ENABLED = NAME, True
    metrics = evaluate_protocols(cfg, ToyModel(), [protocol])["FIRST"]
    parts = protocol.query, protocol.gallery
    q, g = (extract_features(ToyModel(), build_test_loader(cfg, part)) for part in parts)
    labels = [np.array([getattr(s, field) for s in part]) for field in ("pid", "camid") for part in parts]
    cmc, ap, _ = rank_by_sorting(manhattan(q, g), Problem(*labels))
    assert metrics["Rank-1"] == pytest.approx(100 * cmc[0])
    assert metrics["mAP"] == pytest.approx(100 * ap.mean())
    assert 0 <= metrics["TPR@FPR=1e-2"] <= 100


def test_what_is_no_metric_is_refused():
    with pytest.raises(UserError, match="metric 'half' cannot be registered: it is no subclass of Metric"):
        METRIC_REGISTRY.register("half", lambda q_feats, g_feats: None)


def test_a_metric_that_needs_all_images_has_no_distances_of_a_part(problem):
    q_feats, g_feats, labels = problem
    with pytest.raises(ValueError, match=r"one of .*euclidean.*, got 'jaccard'"):
        compute_distance(q_feats, g_feats, "jaccard")
    with pytest.raises(ValueError, match="got 'jaccard'"):
        evaluate_features(q_feats, g_feats, *labels, metric="jaccard")
