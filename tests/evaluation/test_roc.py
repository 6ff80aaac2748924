"""TPR at FPR against a list of all pairs."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import problems

from fastreid.evaluation import tpr_at_fpr
from fastreid.evaluation.rank import check_labels


def tpr_from_all_pairs(distmat, problem, rate):
    matching, others = [], []
    for row, pid, camid in zip(distmat, problem.q_pids, problem.q_camids, strict=True):
        same = problem.g_pids == pid
        hits = same & (problem.g_camids != camid)
        if hits.any():
            matching += row[hits].tolist()
            others += row[~same].tolist()
    best = 0
    for threshold in matching:
        accepted = sum(d <= threshold for d in others)
        if accepted <= rate * len(others):
            best = max(best, sum(d <= threshold for d in matching))
    return best / len(matching)


@settings(max_examples=150, deadline=None)
@given(
    problem=problems(),
    seed=st.integers(0, 2**32),
    levels=st.sampled_from([1, 3, 20, 100000]),
    height=st.integers(1, 12),
)
def test_equals_counting_all_pairs(problem, seed, levels, height):
    assume(problem.has_match)
    shape = len(problem.q_pids), len(problem.g_pids)
    distmat = np.random.default_rng(seed).integers(0, levels + 1, shape).astype(np.float32)

    def row_blocks():
        for top in range(0, shape[0], height):
            yield slice(top, min(top + height, shape[0])), distmat[top : top + height]

    rates = [0, 0.01, 0.1, 0.25, 0.5, 1]
    actual = tpr_at_fpr(row_blocks, check_labels(*shape, *problem), rates)
    assert actual.tolist() == [tpr_from_all_pairs(distmat, problem, rate) for rate in rates]


def test_no_matching_pair_is_an_error():
    labels = check_labels(1, 2, [1], [1, 2], [0], [0, 1])
    with pytest.raises(ValueError, match="no query has a match"):
        tpr_at_fpr(lambda: [(slice(0, 1), np.zeros((1, 2), np.float32))], labels)
