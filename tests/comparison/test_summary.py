"""From what trainings leave behind to tables."""

import csv
import io
import json
import re
import shutil
import statistics

import fabricated
import numpy as np
import pytest
from fabricated import PERSONS, PROTOCOLS, contender, finish, two_methods

from fastreid.comparison.plan import Training
from fastreid.comparison.report import write_comparison
from fastreid.comparison.summary import summarise
from fastreid.comparison.tables import csv_text, latex, markdown
from fastreid.utils.errors import UserError


def test_metrics_are_means_and_deviations_over_seeds(tmp_path):
    trainings = two_methods(tmp_path, 0.05)
    comparison = summarise(trainings)
    assert comparison.protocols == list(PROTOCOLS)
    for row in comparison.rows:
        own = [t for t in trainings if t.contender.name == row.name]
        results = [json.loads(t.evaluations.read_text())[-1]["results"] for t in own]
        for protocol in PROTOCOLS:
            values = [result[protocol]["mAP"] for result in results]
            assert row.scores[protocol].values["mAP"] == values
            assert row.scores[protocol].mean("mAP") == pytest.approx(sum(values) / 3)
            assert row.scores[protocol].deviation("mAP") == pytest.approx(statistics.stdev(values))


def test_the_same_gain_for_every_query_has_an_interval_without_width(tmp_path):
    base, other = summarise(two_methods(tmp_path, 0.05)).rows
    assert base.scores["CARGO_A2G"].difference is None
    difference = other.scores["CARGO_A2G"].difference
    assert (difference.mean, difference.low, difference.high) == pytest.approx((5, 5, 5))
    assert difference.separated


def test_fewer_than_three_seeds_separate_nothing(tmp_path):
    trainings = [t for t in two_methods(tmp_path, 0.05) if t.seed < 2]
    assert not summarise(trainings).rows[1].scores["CARGO_A2G"].difference.separated


def test_a_gain_that_is_smaller_than_the_spread_of_the_seeds_does_not_separate(tmp_path):
    """Seeds differ by 1 and 2 points, the methods by 0.5, for every query alike."""
    _, other = summarise(two_methods(tmp_path, 0.005)).rows
    difference = other.scores["CARGO_A2G"].difference
    assert (difference.mean, difference.low, difference.high) == pytest.approx((0.5, 0.5, 0.5))
    assert not difference.separated


def test_a_gain_that_few_persons_bring_does_not_separate(tmp_path):
    trainings = []
    for name, gain in (("base", 0.0), ("other", 0.6)):
        for seed in range(3):
            trainings.append(Training(contender(name), seed, tmp_path / name / f"seed{seed}"))
            ap = 0.3 + np.where(PERSONS == 3, gain, 0)
            finish(trainings[-1], dict.fromkeys(PROTOCOLS, ap))
    difference = summarise(trainings).rows[1].scores["CARGO_A2G"].difference
    assert difference.low == 0
    assert difference.mean == pytest.approx(2)
    assert not difference.separated


def test_costs_are_those_of_the_whole_feature_and_of_all_iterations(tmp_path):
    row = summarise(two_methods(tmp_path, 0.0)).baseline
    cost = row.cost
    assert row.training_seconds == pytest.approx(0.35 * 40)  # the median: the first step is slow
    assert cost.parameters == 12_340_000
    assert cost.flops == 3e9
    assert cost.images_per_second == 128
    assert cost.peak_bytes == 2_500_000_000


def test_the_minutes_of_what_a_method_starts_from_are_its_own_too(tmp_path):
    trainings = [Training(contender(*n), 0, tmp_path / n[0]) for n in (("one",), ("two", "one"))]
    for training in trainings:
        finish(training, dict.fromkeys(PROTOCOLS, np.full(len(PERSONS), 0.3)))
    one, two = summarise(trainings).rows
    assert two.training_seconds == pytest.approx(2 * one.training_seconds)


def test_a_method_without_a_profile_has_no_costs(tmp_path):
    trainings = two_methods(tmp_path, 0.0)
    for training in trainings[:3]:
        (training.folder / "cost.json").unlink()
    comparison = summarise(trainings)
    assert comparison.baseline.cost is None
    assert re.search(r"\| base +\| – +\| – +\| 0.2 +\| – ", markdown(comparison))
    assert csv_text(comparison).splitlines()[1].endswith(",,,,,,")


def test_what_still_trains_is_left_out(tmp_path, caplog):
    trainings = two_methods(tmp_path, 0.0)
    trainings.append(Training(contender("later"), 0, tmp_path / "later"))
    trainings[1].evaluations.unlink()
    comparison = summarise(trainings)
    assert [(row.name, row.seeds) for row in comparison.rows] == [("base", 2), ("other & co", 3)]
    assert "later: no training is finished yet" in caplog.text
    for training in trainings[:3]:
        training.evaluations.unlink(missing_ok=True)
    with pytest.raises(UserError, match="no training of base is finished"):
        summarise(trainings)


def test_files_that_do_not_belong_together_are_errors(tmp_path):
    def broken(number: int, name: str):
        trainings = two_methods(tmp_path / str(number), 0.0)
        return trainings, trainings[0].folder / name

    trainings, path = broken(0, "query_scores.npz")
    path.unlink()
    with pytest.raises(UserError, match="no readable scores of CARGO_A2G, CARGO_G2A"):
        summarise(trainings)
    trainings, path = broken(1, "query_scores.npz")  # an evaluation of another checkpoint into the folder
    path.write_bytes((trainings[2].folder / "query_scores.npz").read_bytes())
    with pytest.raises(UserError, match="is not of the training's last evaluation"):
        summarise(trainings)
    trainings, path = broken(2, "metrics.json")
    path.write_text('{"iteration"')
    with pytest.raises(UserError, match="metrics.json cannot be read"):
        summarise(trainings)
    path.write_text("")
    with pytest.raises(UserError, match="metrics.json has no times of iterations"):
        summarise(trainings)
    trainings, path = broken(4, "cost.json")
    path.write_text("{}")
    with pytest.raises(UserError, match="cost.json is no profile of a model"):
        summarise(trainings)
    trainings, path = broken(3, "model_final.pth")
    path.unlink()
    with pytest.raises(UserError, match="trained to its end, but model_final.pth is missing"):
        summarise(trainings)


def test_methods_that_were_scored_on_other_persons_are_not_compared(tmp_path, monkeypatch):
    trainings = two_methods(tmp_path, 0.0)
    shutil.rmtree(trainings[-1].folder)
    monkeypatch.setattr(fabricated, "PERSONS", PERSONS[::-1])
    finish(trainings[-1], dict.fromkeys(PROTOCOLS, np.full(len(PERSONS), 0.3)))
    with pytest.raises(UserError, match="was scored on other queries than"):
        summarise(trainings)


def test_tables_to_read_show_means_deviations_intervals_and_costs(tmp_path):
    comparison = summarise(two_methods(tmp_path, 0.05))
    text = markdown(comparison)
    base = comparison.baseline.scores["CARGO_A2G"]
    assert f"{base.mean('mAP'):.1f} ± {base.deviation('mAP'):.1f}" in text
    assert "+5.0 [+5.0, +5.0] *" in text
    assert [cell.strip() for cell in text.split("| base  ")[-2].splitlines()[0].split("|")[1:7]] == [
        "12.34",
        "3",
        "0.2",
        "128",
        "2.50",
        "CPU, batches of 64",
    ]


def test_the_csv_has_every_figure_in_a_column_of_its_own(tmp_path):
    comparison = summarise(two_methods(tmp_path, 0.05))
    lines = list(csv.DictReader(io.StringIO(csv_text(comparison))))
    assert [(line["method"], line["protocol"]) for line in lines] == [
        (row.name, protocol) for row in comparison.rows for protocol in PROTOCOLS
    ]
    other = comparison.rows[1].scores["CARGO_G2A"]
    assert float(lines[3]["mAP mean"]) == other.mean("mAP")
    assert float(lines[3]["mINP sd"]) == other.deviation("mINP")
    assert float(lines[3]["mAP difference"]) == other.difference.mean
    assert lines[0]["mAP difference"] == ""
    assert (lines[3]["seeds"], lines[3]["parameters"]) == ("3", "12340000")


def test_latex_escapes_names_and_prints_the_best_bold(tmp_path):
    text = latex(summarise(two_methods(tmp_path, 0.05)))
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{lcccc}"
    assert r"CARGO\_A2G" in lines[2]
    assert lines[-3].startswith(r"other \& co & $\mathbf{")
    assert lines[-3].count("mathbf") == 4
    assert lines[-4].count("mathbf") == 0
    assert all(line.count("&") - line.count(r"\&") == 4 for line in lines[3:-2] if "&" in line)


def test_all_files_are_written_and_the_page_holds_the_plot(tmp_path):
    paths = write_comparison(summarise(two_methods(tmp_path / "runs", 0.05)), tmp_path / "out")
    assert sorted(path.name for path in paths) == sorted(
        f"comparison.{kind}" for kind in ("md", "csv", "tex", "json", "png", "html")
    )
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "other &amp; co" in page
    assert page.count("data:image/png;base64,") == 1
    assert (tmp_path / "out" / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert stored["rows"][1]["scores"]["CARGO_A2G"]["difference"]["mean"] == pytest.approx(5)
