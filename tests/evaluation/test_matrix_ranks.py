"""`evaluate_rank` against sorting every row."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracles import Problem, problems, rank_by_sorting

from fastreid.evaluation import evaluate_rank

shared_fixture = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def assert_same(actual, expected):
    for name, a, e in zip(("cmc", "AP", "INP"), actual, expected, strict=True):
        np.testing.assert_allclose(a, e, atol=1e-12, err_msg=name)


def random_problem(rng, num_q, num_g, num_people, num_cameras=3):
    sizes = (num_people, num_q), (num_people, num_g), (num_cameras, num_q), (num_cameras, num_g)
    return Problem(*(rng.integers(0, high, n) for high, n in sizes))


@shared_fixture
@given(data=st.data())
def test_equals_sorting_with_and_without_ties(use_cython, data):
    problem = data.draw(problems())
    assume(problem.has_match)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    levels = data.draw(st.sampled_from([1, 2, 5, 1000000]))
    shape = len(problem.q_pids), len(problem.g_pids)
    distmat = (rng.integers(-levels, levels, shape) / 7).astype(data.draw(st.sampled_from(["f4", "f8"])))
    max_rank = data.draw(st.integers(1, 70))
    expected = rank_by_sorting(distmat, problem, max_rank)
    assert_same(evaluate_rank(distmat, *problem, max_rank, use_cython), expected)


@pytest.mark.parametrize("num_people", [1, 5, 300])
def test_any_number_of_hits(use_cython, num_people):
    """From a hit or two among thousands to almost nothing but hits."""
    rng = np.random.default_rng(num_people)
    problem = random_problem(rng, 6, 4000, num_people)
    distmat = rng.normal(size=(6, 4000)).astype(np.float32)
    distmat[problem.q_pids[:, None] == problem.g_pids] -= 1
    assert_same(evaluate_rank(distmat, *problem, use_cython=use_cython), rank_by_sorting(distmat, problem))


@pytest.mark.parametrize("outlier", [1e30, np.inf, -np.inf])
def test_hits_at_very_unlike_distances(use_cython, outlier):
    rng = np.random.default_rng(3)
    problem = random_problem(rng, 8, 500, 4)
    distmat = rng.normal(size=(8, 500)).astype(np.float32)
    distmat[rng.random((8, 500)) < 0.1] = outlier
    assert_same(evaluate_rank(distmat, *problem, use_cython=use_cython), rank_by_sorting(distmat, problem))


def test_a_small_case_by_hand(use_cython):
    #          junk, other, hit, hit at the other's distance but later, other far off
    g_pids, g_camids = [7, 8, 7, 7, 9], [0, 0, 1, 2, 1]
    distmat = np.array([[0.1, 0.4, 0.2, 0.4, 0.9]], np.float32)
    cmc, ap, inp = evaluate_rank(distmat, [7], g_pids, [0], g_camids, use_cython=use_cython)
    assert cmc.tolist() == [1, 1, 1, 1, 1]
    assert ap.tolist() == [(1 / 1 + 2 / 3) / 2]
    assert inp.tolist() == [2 / 3]


def test_queries_without_a_match_are_left_out(use_cython):
    distmat = np.array([[0.3, 0.1], [0.1, 0.2], [0.5, 0.2]], np.float32)
    cmc, ap, inp = evaluate_rank(distmat, [1, 5, 2], [1, 2], [0, 0, 1], [1, 1], use_cython=use_cython)
    assert cmc.tolist() == [0, 1]
    assert ap.tolist() == [0.5]
    assert inp.tolist() == [0.5]


def test_columns_of_another_array_are_read_in_place(use_cython):
    rng = np.random.default_rng(0)
    problem = random_problem(rng, 5, 40, 3)
    wide = rng.normal(size=(40, 100)).astype(np.float32)
    expected = rank_by_sorting(wide[:5, 20:60], problem)
    assert_same(evaluate_rank(wide[:5, 20:60], *problem, use_cython=use_cython), expected)
    expected = rank_by_sorting(wide.T[:5], problem)
    assert_same(evaluate_rank(wide.T[:5], *problem, use_cython=use_cython), expected)


def test_the_number_of_threads_changes_nothing(use_cython):
    rng = np.random.default_rng(1)
    problem = random_problem(rng, 60, 700, 20)
    distmat = rng.random((60, 700))
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(evaluate_rank(distmat, *problem, use_cython=use_cython))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all((a == b).all() for a, b in zip(results[0], other, strict=True))


GOOD = {
    "distmat": np.ones((2, 3), np.float32),
    "q_pids": [1, 2],
    "g_pids": [1, 2, 3],
    "q_camids": [0, 0],
    "g_camids": [1, 1, 1],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distmat": np.ones((2, 3), np.int64)}, "float32 or float64"),
        ({"distmat": np.ones((2, 3), np.float16)}, "float32 or float64"),
        ({"distmat": np.ones(3, np.float32)}, "float32 or float64 matrix"),
        ({"q_pids": [1, 2, 3]}, "q_pids must be 2 integers"),
        ({"g_pids": [1, 2]}, "g_pids must be 3 integers"),
        ({"q_camids": [0.0, 0.0]}, "q_camids must be 2 integers"),
        ({"g_camids": [[1], [1], [1]]}, "g_camids must be 3 integers"),
        ({"g_camids": [0, 0, 0]}, "no query has a match"),
        ({"q_pids": [8, 9]}, "no query has a match"),
        ({"max_rank": 0}, "max_rank"),
        ({"distmat": np.ones((0, 3), np.float32), "q_pids": [], "q_camids": []}, "no query has a match"),
        ({"distmat": np.ones((2, 0), np.float32), "g_pids": [], "g_camids": []}, "no query has a match"),
    ],
)
def test_bad_input_is_named(use_cython, change, message):
    with pytest.raises(ValueError, match=message):
        evaluate_rank(**(GOOD | change), use_cython=use_cython)


@pytest.mark.parametrize("place", [(0, 0), (1, 1), (2, 2), (2, 0), (3, 99)])
def test_nan_is_refused_wherever_it_is(use_cython, place):
    """In a hit, in junk, in another's item, in the row of a query without a match, and far behind."""
    distmat = np.zeros((4, 100), np.float32)
    distmat[place] = np.nan
    g_pids, g_camids = np.full(100, 9), np.ones(100, int)
    g_pids[:3] = 0, 1, 2
    with pytest.raises(ValueError, match=f"NaN.*query {place[0]}"):
        evaluate_rank(distmat, [0, 1, 5, 0], g_pids, [0, 1, 0, 0], g_camids, use_cython=use_cython)
