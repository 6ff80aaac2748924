"""Estimates, training curves and settings of a report."""

import json
import math

import numpy as np
import pytest
from toy_runs import make_protocol, make_run, make_samples

from fastreid.evaluation.bootstrap import paired_bootstrap
from fastreid.visualization.figures import build_figures
from fastreid.visualization.intervals import METRICS, RESAMPLES, protocol_results
from fastreid.visualization.training_curves import POINTS, training_charts


@pytest.fixture(scope="module")
def dataset():
    return make_protocol(make_samples([f"{number}.jpg" for number in range(160)], 20), 60)


@pytest.fixture(scope="module")
def runs(dataset):
    return [make_run([dataset], "better", 0.8, 0), make_run([dataset], "worse", 1.6, 1)]


def test_estimates_are_the_metrics_of_the_evaluation_with_intervals_around_them(dataset, runs):
    results = protocol_results(dataset, runs)
    for run, estimates in zip(runs, results.runs, strict=True):
        for metric in METRICS:
            value, low, high = estimates[metric]
            assert value == pytest.approx(run.protocols["TOY"].metrics[metric])
            assert low <= value <= high
    assert protocol_results(dataset, runs[:1]).difference is None


def test_a_difference_is_that_of_the_same_queries_and_sure_where_its_interval_leaves_out_zero(dataset, runs):
    difference = protocol_results(dataset, runs).difference["mAP"]
    first, second = (run.protocols["TOY"].scores.ap for run in runs)
    persons = np.array([sample.pid for sample in dataset.query])
    interval = paired_bootstrap(100 * (first - second), persons, RESAMPLES)
    assert difference == pytest.approx((100 * (first - second).mean(), *interval))
    assert difference.sure
    assert not protocol_results(dataset, [runs[0], runs[0]]).difference["mAP"].sure


def test_settings_that_differ_are_listed_and_places_are_not(dataset, runs):
    own = {"A": "1", "B": "2", "OUTPUT_DIR": "x", "OWN": "3"}
    changed = [run._replace(settings=s) for run, s in zip(runs, (own, {"A": "1", "B": "5"}), strict=True)]
    assert build_figures([dataset], changed).settings == [("B", ("2", "5")), ("OWN", ("3", "\N{EN DASH}"))]
    assert build_figures([dataset], changed[:1]).settings == []


def test_training_curves_are_means_over_equal_shares_and_skip_what_is_no_number(runs, tmp_path):
    records = [{"iteration": step, "loss_b": step, "total_loss": 2 * step} for step in range(1, 1001)]
    records += [{"iteration": 500, "TOY/mAP": 10.0}, {"iteration": 1000, "TOY/mAP": 20.0, "lr": 1}]
    records += [{"iteration": 7, "loss_b": math.nan}, {"iteration": 7, "loss_b": 10**400}, {"iteration": "x"}]
    lines = [*map(json.dumps, records), "", "[1]", "[" * 100_000, '{"iteration": 1001, "tot']
    (tmp_path / "metrics.json").write_text("\n".join(lines))
    losses, scores = training_charts(runs[0]._replace(checkpoint=str(tmp_path / "model_best.pth")))
    assert [series.name for series in losses.series] == ["total_loss", "loss_b"]
    width = 1000 // POINTS
    assert losses.series[1].points == [(end, end - (width - 1) / 2) for end in range(width, 1001, width)]
    assert (scores.series[0].name, scores.series[0].points) == ("TOY", [(500, 10), (1000, 20)])
    assert training_charts(runs[0]) == []
