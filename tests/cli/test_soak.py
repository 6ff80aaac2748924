"""`tools/soak.py`: how it ends when it cannot do its work."""

import pytest
from worlds.programs import run_tool

from fastreid.utils.errors import UserError
from tools.benchmarks import soak


def test_an_output_that_cannot_be_written_is_one_line():
    code, out, err = run_tool("soak.py", "--output", "/proc/x")
    assert (code, out) == (2, "")
    assert err.startswith("error: --output '/proc/x': no permission to write in /proc")
    assert err.count("\n") == 1


def test_data_that_cannot_be_rendered_are_one_line_with_the_reason(tmp_path):
    (tmp_path / "data").touch()
    code, out, err = run_tool("soak.py", "--output", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("error: rendering the data ended with code 2: ")
    assert f"{tmp_path}/data" in err
    assert err.count("\n") == 1


def test_a_training_that_fails_is_named_with_the_last_thing_it_said():
    run = soak.Run(["sh", "-c", "echo working; echo 'error: no room' >&2; exit 2"])
    assert list(run.iterations()) == []
    with pytest.raises(UserError, match="^a training ended with code 2: no room$"):
        run.check()
