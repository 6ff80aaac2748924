"""Intervals of paired differences: persons are drawn, each with all of its queries."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastreid.evaluation.bootstrap import paired_bootstrap


def test_the_interval_is_that_of_all_resamples_of_the_persons():
    """Four persons have 256 equally likely resamples, which can be listed."""
    differences = {7: [1.0, 3.0, 2.0], 2: [-4.0], 9: [0.0, 6.0], 5: [8.0]}
    means = [
        np.mean([value for person in drawn for value in differences[person]])
        for drawn in itertools.product(differences, repeat=4)
    ]
    flat = [(value, person) for person, values in differences.items() for value in values]
    values, persons = map(np.array, zip(*flat[::-1], strict=True))
    low, high = paired_bootstrap(values, persons, resamples=200_000)
    assert (low, high) == pytest.approx(np.percentile(means, [2.5, 97.5], method="nearest"), abs=0.15)


def test_more_queries_of_the_same_persons_do_not_make_it_narrower():
    person_means = np.random.default_rng(1).normal(3, 10, 50)
    widths = []
    for queries in (1, 20):
        low, high = paired_bootstrap(np.repeat(person_means, queries), np.repeat(np.arange(50), queries))
        widths.append(high - low)
        assert low < person_means.mean() < high
    assert widths[0] == pytest.approx(widths[1])
    normal = 2 * 1.96 * person_means.std() / np.sqrt(50)
    assert widths[0] == pytest.approx(normal, rel=0.1)


@given(st.integers(1, 30), st.floats(-50, 50))
def test_a_constant_difference_has_no_spread(queries, constant):
    interval = paired_bootstrap(np.full(queries, constant), np.arange(queries) // 3, resamples=50)
    assert interval == pytest.approx((constant, constant))


def test_the_same_queries_give_the_same_interval():
    values, persons = np.random.default_rng(0).normal(size=40), np.arange(40) // 4
    assert paired_bootstrap(values, persons) == paired_bootstrap(values, persons)


@pytest.mark.parametrize(("queries", "persons"), [(0, 0), (3, 2)])
def test_nothing_to_draw_from_is_an_error(queries, persons):
    with pytest.raises(ValueError, match="persons"):
        paired_bootstrap(np.zeros(queries), np.zeros(persons, int))
