"""`tools/compare_runs.py`: what it prints and writes, and which runs it refuses."""

import csv
import json
from pathlib import Path

import pytest
from worlds.programs import run_tool

METRICS_SHOWN = ["Rank-1", "mAP", "mINP"]
METRICS = {"Rank-1": 50.0, "mAP": 40.0, "mINP": 30.0, "queries": 7}


def write_run(folder: Path, **protocols: dict) -> Path:
    """An OUTPUT_DIR with results as an evaluation leaves them."""
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"results": protocols}))
    return folder


@pytest.fixture
def compare():
    return lambda *arguments: run_tool("compare_runs.py", *arguments)


@pytest.fixture
def run(tmp_path) -> str:
    return f"one={write_run(tmp_path / 'one', A2G=METRICS, G2A=METRICS | {'mAP': 45.0})}"


def test_the_summary_gets_its_folder(compare, run, tmp_path):
    output = tmp_path / "new" / "summary.json"
    code, out, _ = compare("--run", run, "--seconds", "data=1.5", "--output", output)
    assert code == 0
    assert "| G2A        | one   |     50.0 |  45.0 |   30.0 |" in out
    assert "diff" not in out
    summary = json.loads(output.read_text())
    assert summary["one"]["A2G"] == {"Rank-1": 50.0, "mAP": 40.0, "mINP": 30.0}
    assert summary["seconds"] == {"data": 1.5}


def test_metrics_at_equal_terms_are_shown_where_every_run_has_them(compare, tmp_path):
    runs = [
        ("--run", f"{name}={write_run(tmp_path / name, A2G=METRICS | extra)}")
        for name, extra in (("one", {"mAP@1:99": 61.25, "mAP@1:9": 80.0}), ("two", {"mAP@1:99": 62.5}))
    ]
    code, out, _ = compare(*runs[0], *runs[1])
    assert code == 0
    assert out.splitlines()[0].split("|")[6].strip() == "mAP@1:99"
    assert [line.split("|")[6].strip() for line in out.splitlines()[2:]] == ["61.2", "62.5"]


def test_differences_to_the_first_run_are_shown_and_written_as_csv_and_latex(compare, tmp_path):
    write_run(tmp_path / "first", A2G=METRICS)
    write_run(tmp_path / "second", A2G=METRICS | {"mAP": 42.25, "Rank-1": 49.0})
    files = [tmp_path / "new" / name for name in ("all.csv", "all.tex")]
    named = ("--run", f"base_1={tmp_path / 'first'}", "--run", f"007={tmp_path / 'second'}")
    code, out, err = compare(*named, "--output", *files)
    assert (code, err) == (0, "")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()]
    assert cells[0] == ["protocol", "run", *METRICS_SHOWN, *(f"{name} diff" for name in METRICS_SHOWN)]
    assert cells[2] == ["A2G", "base_1", "50.0", "40.0", "30.0", "", "", ""]
    assert cells[3] == ["A2G", "007", "49.0", "42.2", "30.0", "-1.0", "+2.2", "+0.0"]
    with open(files[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["mAP"], row["mAP diff"]) for row in rows] == [
        ("base_1", "40.0", ""),
        ("007", "42.25", "2.25"),
    ]
    latex = files[1].read_text()
    assert latex.startswith("\\begin{tabular}{llrrrrrr}")
    assert " A2G        & base\\_1 & " in latex
    assert latex.rstrip().endswith("\\end{tabular}")


def test_a_file_of_another_kind_is_refused_before_anything_is_written(compare, run, tmp_path):
    code, out, err = compare("--run", run, "--output", tmp_path / "a.json", tmp_path / "a.xlsx")
    assert (code, out) == (2, "")
    assert err == f"error: --output '{tmp_path}/a.xlsx': its name must end with .json, .csv, .tex\n"
    assert not (tmp_path / "a.json").exists()


def test_an_output_that_cannot_be_written_is_one_line(compare, run, tmp_path):
    code, out, err = compare("--run", run, "--output", tmp_path)
    assert (code, out) == (2, "")
    assert err == f"error: --output '{tmp_path}' is a folder, not a file; choose another\n"


def test_protocols_come_in_the_order_of_the_first_run(compare, run, tmp_path):
    other = write_run(tmp_path / "two", G2A=METRICS, A2G=METRICS)
    code, out, _ = compare("--run", run, "--run", f"two={other}")
    assert code == 0
    rows = [line.split()[1:4:2] for line in out.splitlines()[2:]]
    assert rows == [["A2G", "one"], ["A2G", "two"], ["G2A", "one"], ["G2A", "two"]]


def test_runs_of_other_protocols_are_refused(compare, run, tmp_path):
    other = write_run(tmp_path / "two", A2G=METRICS)
    code, _, err = compare("--run", run, "--run", f"two={other}")
    assert code == 2
    assert err == "error: run two has protocols ['A2G'], expected ['A2G', 'G2A']\n"


@pytest.mark.parametrize("option", ["--run", "--seconds"])
def test_a_name_is_given_once(compare, run, option):
    value = {"--run": run, "--seconds": "one=2"}[option]
    code, out, err = compare("--run", run, option, value, option, value)
    assert (code, out) == (2, "")
    assert err == f"error: {option} one= is given twice; give each a name of its own\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no readable results"),
        ("{", "no readable results"),
        ("[]", 'has no "results" of protocols'),
        ('{"checkpoint": null}', 'has no "results" of protocols'),
        ('{"results": {}}', 'has no "results" of protocols'),
        ('{"results": {"A2G": {"mAP": 4, "Rank-1": "x"}}}', "A2G has no Rank-1, mINP"),
        ('{"results": {"A2G": 3}}', "A2G has no Rank-1, mAP, mINP"),
    ],
)
def test_what_are_no_results_is_one_line(compare, tmp_path, content, said):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    code, _, err = compare("--run", f"one={tmp_path}")
    assert code == 2
    assert f"{tmp_path}/results.json" in err
    assert said in err
    assert err.count("\n") == 1
