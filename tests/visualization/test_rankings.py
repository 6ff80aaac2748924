"""Rank lists, curves and camera pairs from blocks of distances, against the textbook."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastreid.evaluation import evaluate_rank
from fastreid.evaluation.rank import check_labels
from fastreid.visualization.rankings import RECALL_LEVELS, collect_rankings, interpolated_precision
from fastreid.visualization.selection import choose_queries, spread_by_precision


@st.composite
def problems(draw):
    """Distances with ties, and few persons and cameras, so that all cases come up."""
    queries, gallery = draw(st.integers(1, 6)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    distances = rng.integers(0, 6, (queries, gallery)).astype(np.float32)
    pids = rng.integers(0, 3, queries), rng.integers(-1, 3, gallery)
    cameras = rng.integers(0, 3, queries), rng.integers(0, 3, gallery)
    return distances, *pids, *cameras


def collect(distances, q_pids, g_pids, q_cams, g_cams, k=3):
    labels = check_labels(*distances.shape, q_pids, g_pids, q_cams, g_cams)
    half = len(distances) // 2
    blocks = [(slice(0, half), distances[:half]), (slice(half, len(distances)), distances[half:])]
    return collect_rankings(blocks, labels, q_cams, g_cams, k)


def plain_list(row, pid, camera, g_pids, g_cams) -> list[int]:
    """Sorted by distance, then by index; the own camera's images of the person left out."""
    kept = [i for i in range(len(row)) if not (g_pids[i] == pid and g_cams[i] == camera)]
    return sorted(kept, key=lambda i: (row[i], i))


@settings(deadline=None)
@given(problems())
def test_a_list_is_the_nearest_k_and_the_next_true_match_behind_them(problem):
    distances, q_pids, g_pids, q_cams, g_cams = problem
    found = collect(*problem)
    for query, row in enumerate(distances):
        order = plain_list(row, q_pids[query], q_cams[query], g_pids, g_cams)
        assert found.top_k[query].tolist() == [*order, -1, -1, -1][:3]
        assert found.distances[query][: len(order[:3])].tolist() == row[order[:3]].tolist()
        behind = [i for i in order[3:] if g_pids[i] == q_pids[query]]
        assert found.next_match[query] == (behind[0] if behind else -1)
        if behind:
            assert found.next_rank[query] == order.index(behind[0]) + 1
            assert found.next_distance[query] == row[behind[0]]


@settings(deadline=None)
@given(problems())
def test_a_camera_pair_scores_as_an_evaluation_of_these_cameras_alone(problem):
    distances, q_pids, g_pids, q_cams, g_cams = problem
    found = collect(*problem)
    for q_camera in range(len(found.pair_ap)):
        for g_camera in range(len(found.pair_ap)):
            rows, columns = np.flatnonzero(q_cams == q_camera), np.flatnonzero(g_cams == g_camera)
            part = distances[np.ix_(rows, columns)]
            labels = q_pids[rows], g_pids[columns], q_cams[rows], g_cams[columns]
            hits = (q_pids[rows, None] == g_pids[columns]).any(1) if q_camera != g_camera else np.zeros(1)
            assert found.pair_queries[q_camera, g_camera] == hits.sum()
            if hits.any():
                expected = evaluate_rank(part, *labels)[1].mean()
                assert np.isclose(found.pair_ap[q_camera, g_camera], expected)
            else:
                assert np.isnan(found.pair_ap[q_camera, g_camera])


@settings(deadline=None)
@given(st.sets(st.integers(1, 60), min_size=1, max_size=12))
def test_precision_is_the_highest_at_the_recall_or_beyond(ranks):
    ranks = sorted(ranks)
    got = interpolated_precision(np.array(ranks))
    for level, value in zip(RECALL_LEVELS, got, strict=True):
        reached = [(hits / rank) for hits, rank in enumerate(ranks, 1) if hits / len(ranks) >= level - 1e-9]
        assert np.isclose(value, max(reached))


def test_the_precision_recall_curve_is_the_mean_over_queries_with_a_match():
    distances = np.array([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]], np.float32)
    found = collect(distances, np.array([0, 1, 9]), np.array([0, 0, 1, 2]), np.zeros(3, int), np.ones(4, int))
    assert np.allclose(found.precision, (1 + 1 / 3) / 2)


def test_spread_goes_from_the_worst_to_the_best_and_leaves_out_queries_without_a_match():
    ap = np.array([0.5, np.nan, 0.1, 0.9, 0.7, 0.3])
    assert spread_by_precision(ap, 3) == [2, 0, 3]
    assert spread_by_precision(ap, 10) == [2, 5, 0, 4, 3]


def test_chosen_queries_hold_the_worst_the_best_and_the_most_changed_once_each():
    rng = np.random.default_rng(0)
    ap, other = rng.random(100), rng.random(100)
    ap[3] = other[7] = np.nan
    chosen = choose_queries(ap, other, 20)
    assert len(chosen) == len(set(chosen)) == 20
    assert 3 not in chosen
    change = ap - other
    assert {np.nanargmin(ap), np.nanargmax(ap), np.nanargmin(change), np.nanargmax(change)} <= set(chosen)
    assert sorted(choose_queries(ap, None, 1000)) == [i for i in range(100) if i != 3]
