"""The measurement of the rendered benchmarks' view gap."""

import json
import statistics

import pytest

from projects.testbed import calibrate

BRIEF = [
    "MODEL.DEVICE",
    "cpu",
    "SOLVER.MAX_EPOCH",
    "1",
    "SOLVER.ITERS_PER_EPOCH",
    "1",
    "SOLVER.IMS_PER_BATCH",
    "8",
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The command line of a measurement of seconds, and its output folder."""
    folder = tmp_path_factory.mktemp("testbed")
    places = ["--root", str(folder / "data"), "--output", str(folder / "out")]
    few = ["TEST.EQUAL_TERMS.DISTRACTORS", "3"]
    command = [*BRIEF, *few, "--identities", "6", "--test-ids", "4", *places]
    calibrate.main(command)
    return command, folder / "out"


def test_a_row_has_every_pair_of_views(measured):
    (row,) = json.loads((measured[1] / "gap.json").read_text())
    assert (row["layout"], row["view gap"], row["identities"], row["distractors"]) == ("CARGO", "real", 6, 3)
    assert set(row["mAP"]) == {f"CARGO_{pair}" for pair in ("AA", "GG", "A2G", "G2A", "AG")}
    assert all(25 <= value <= 100 for value in row["mAP"].values())  # the worst of four ranks is a quarter


def test_the_table_says_how_far_the_views_are_apart(measured):
    (row,) = json.loads((measured[1] / "gap.json").read_text())
    scores = row["mAP"]
    within = statistics.mean((scores["CARGO_AA"], scores["CARGO_GG"]))
    across = statistics.mean((scores["CARGO_A2G"], scores["CARGO_G2A"]))
    last = (measured[1] / "gap.md").read_text().strip().splitlines()[-1]
    cells = [cell.strip() for cell in last.strip("|").split("|")]
    assert cells[-3:] == [f"{within:.1f}", f"{across:.1f}", f"{within - across:.1f}"]
    assert (measured[1] / "gap.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_measured_is_not_measured_again(measured):
    command, output = measured
    log = output / "CARGO_real_ids6_test4" / "seed1" / "log.txt"
    before = log.stat().st_mtime_ns
    calibrate.main(command)
    assert log.stat().st_mtime_ns == before


@pytest.mark.parametrize(("identities", "epochs"), [(6, 20), (1000, 20), (3000, 60)])
def test_more_than_a_thousand_persons_are_trained_for_longer(tmp_path, identities, epochs):
    args = calibrate.build_parser().parse_args(["--output", str(tmp_path)])
    training, _ = calibrate.plan_training(args, "CARGO", "real", identities, seed=1)
    assert training.contender.cfg.SOLVER.MAX_EPOCH == epochs


def test_another_training_is_not_taken_for_this_one(measured):
    with pytest.raises(SystemExit):
        calibrate.main(["SOLVER.BASE_LR", "0.5", *measured[0]])


def test_a_report_of_nothing_says_so(tmp_path, capsys):
    with pytest.raises(SystemExit):
        calibrate.main(["--report-only", "--output", str(tmp_path)])
    assert "no finished training yet" in capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"results"', '{"results": {"CARGO_AG": {"mAP": 1}}}', "[]"])
def test_a_damaged_result_is_named(tmp_path, content, capsys):
    path = tmp_path / "CARGO_real_ids6_test4" / "seed1" / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(SystemExit) as stopped:
        calibrate.main(["--report-only", "--output", str(tmp_path)])
    error = capsys.readouterr().err
    assert (stopped.value.code, error.count("\n")) == (2, 1)
    assert f"{path} is not what a training has left; remove {path.parent}" in error
