"""`tools/make_synthetic_benchmark.py` as a person uses it."""

import subprocess
import sys

import pytest
from worlds.options import REPO
from worlds.programs import run_tool

from fastreid.rendered import LAYOUTS
from fastreid.utils.errors import UserError

TOOL = "make_synthetic_benchmark.py"
SMALL = ["--train-ids", "3", "--test-ids", "4", "--images-per-camera", "2", "--size", "32x16", "--seed", "7"]


def test_all_writes_the_five_benchmarks(written, digests, tmp_path):
    assert run_tool(TOOL, "--benchmark", "all", "--root", tmp_path, "--workers", "1", *SMALL).code == 0
    assert digests(tmp_path) == digests(written)
    assert {path.name for path in tmp_path.iterdir()} == set(LAYOUTS)


def test_it_is_quiet_in_a_pipe(tmp_path):
    tool = [sys.executable, REPO / "tools" / TOOL, "--benchmark", "AG_ReID_v1", "--root", tmp_path]
    done = subprocess.run([*tool, *SMALL], capture_output=True, text=True, check=True, cwd=REPO)
    assert done.stderr == ""
    start, end = done.stdout.splitlines()
    assert "28 images to write" in start
    assert "done" in end


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--benchmark", "CARGO2"], "CARGO"),
        (["--benchmark", "CARGO", "--size", "256"], "256x128"),
        (["--benchmark", "CARGO", "--size", "axb"], "256x128"),
        (["--benchmark", "CARGO", "--size", "4x4"], "--size"),
        (["--benchmark", "CARGO", "--train-ids", "0"], "--train-ids"),
        (["--benchmark", "CARGO", "--test-ids", "many"], "--test-ids"),
        (["--benchmark", "CARGO", "--workers", "-1"], "--workers"),
        (["--benchmark", "CARGO", "--colour", "red"], "--colour"),
        ([], "--benchmark"),
    ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path, arguments, named):
    code, _, error = run_tool(TOOL, "--root", tmp_path / "data", *arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert named in error
    assert not (tmp_path / "data").exists()


def test_a_root_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    code, _, error = run_tool(TOOL, "--benchmark", "CARGO", "--root", tmp_path / "file" / "data", *SMALL)
    assert code == 2
    assert str(tmp_path / "file") in error


def test_debug_lets_the_traceback_through(tmp_path):
    with pytest.raises(UserError):
        run_tool(TOOL, "--root", tmp_path, "--benchmark", "CARGO2", "--debug")
