"""`tools/compare_runs.py`: what it prints and writes, and which runs it refuses."""

import json
from pathlib import Path

import pytest

METRICS = {"Rank-1": 50.0, "mAP": 40.0, "mINP": 30.0, "queries": 7}


def write_run(folder: Path, **protocols: dict) -> Path:
    """An OUTPUT_DIR with results as an evaluation leaves them."""
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"results": protocols}))
    return folder


@pytest.fixture
def compare(run_tool):
    return lambda *arguments: run_tool("compare_runs.py", *arguments)


@pytest.fixture
def run(tmp_path) -> str:
    return f"one={write_run(tmp_path / 'one', A2G=METRICS, G2A=METRICS | {'mAP': 45.0})}"


def test_the_summary_gets_its_folder(compare, run, tmp_path):
    output = tmp_path / "new" / "summary.json"
    code, out, _ = compare("--run", run, "--seconds", "data=1.5", "--output", output)
    assert code == 0
    assert "| G2A        | one   |     50.0 |  45.0 |   30.0 |" in out
    summary = json.loads(output.read_text())
    assert summary["one"]["A2G"] == {"Rank-1": 50.0, "mAP": 40.0, "mINP": 30.0}
    assert summary["seconds"] == {"data": 1.5}


def test_an_output_that_cannot_be_written_is_one_line(compare, run, tmp_path):
    code, out, err = compare("--run", run, "--output", tmp_path)
    assert (code, out) == (2, "")
    assert err == f"error: --output '{tmp_path}' is a folder, not a file; choose another\n"
