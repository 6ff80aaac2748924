"""Estimates, training curves and settings of a report."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from toy_runs import make_pictures, make_protocol, make_run, make_samples, make_table

from fastreid.evaluation.bootstrap import paired_bootstrap
from fastreid.visualization.figures import MOST_CELLS, build_figures
from fastreid.visualization.html import PAGE_BYTES
from fastreid.visualization.intervals import METRICS, RESAMPLES, protocol_results
from fastreid.visualization.report import MOST_SETTINGS, write_report
from fastreid.visualization.training_curves import MOST_SERIES, POINTS, training_charts


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


def test_more_curves_than_can_be_told_apart_are_cut_and_the_title_says_so(runs, tmp_path):
    count = MOST_SERIES + 2
    records = [{"iteration": step, **{f"P{n}/mAP": n for n in range(count)}} for step in (10, 20)]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, records)))
    (chart,) = training_charts(runs[0]._replace(checkpoint=str(tmp_path / "model_best.pth")))
    assert chart.title == f"mAP while training, better, {MOST_SERIES} of {count} curves"
    assert [series.name for series in chart.series] == [f"P{n}" for n in range(MOST_SERIES)]


def test_a_record_that_training_has_lost_is_worth_a_warning_and_one_that_never_was_is_not(
    runs, tmp_path, caplog
):
    run = runs[0]._replace(checkpoint=str(tmp_path / "model_best.pth"))
    assert training_charts(run) == []
    assert caplog.text == ""
    (tmp_path / "metrics.json").write_text("")
    assert training_charts(run) == []
    assert "metrics.json: no loss and no mAP in it" in caplog.text


def test_whatever_is_many_is_cut_with_a_note_so_that_a_page_holds_it(tmp_path):
    samples = make_samples(make_pictures(tmp_path / "pictures", 60, 1), 6)
    datasets = [make_protocol(samples, 20, name) for name in ("A", "B")]
    names, count = [f"view {number}" for number in range(200)], 30_000
    table = replace(make_table([]), row_names=names, column_names=names, notes=[["note"] * 200] * 200)
    table = replace(table, values=[[0.5] * 200] * 200)
    runs = [
        make_run(datasets, name, 1.0, 0)._replace(
            settings={f"KEY.{number}": name * 300 for number in range(count)},
            tables=[replace(table, decimals=decimals) for decimals in range(12)],
        )
        for name in ("first", "second")
    ]
    figures = build_figures(datasets, runs)
    assert sum(len(t.row_names) * len(t.column_names) for t in figures.every_table) <= MOST_CELLS
    shown = len(figures.tables[0].values)
    assert {len(row) for row in (*figures.tables[0].values, *figures.tables[0].notes)} == {shown}
    assert figures.tables[0].title.endswith(f", first, {shown} of 200 rows, {shown} of 200 columns")
    page = tmp_path / "report.html"
    write_report(page, datasets, runs, figures, queries=2)
    assert page.stat().st_size < PAGE_BYTES
    assert f"{count} settings, the first {MOST_SETTINGS} of them here" in page.read_text()
