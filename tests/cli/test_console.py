"""The console command ``fastreid``: it lists its commands, and starts one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastreid.cli import COMMANDS

REPO = Path(__file__).resolve().parents[2]
MISSING = "raise ModuleNotFoundError(f'No module named {__name__!r}', name=__name__)\n"


@pytest.fixture
def fastreid(tmp_path):
    """Runs the command in an empty folder, as the installed script does; exit code, stdout and stderr.

    There is no torch and no numpy: nothing imports them before a command is chosen.
    """
    for package in ("numpy", "torch"):
        (tmp_path / f"{package}.py").write_text(MISSING)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-c", "from fastreid.cli import main; main()", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPO)])},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_help_has_a_line_for_every_command(fastreid):
    code, out, err = fastreid("--help")
    assert (code, err) == (0, "")
    for name, (_, purpose) in COMMANDS.items():
        assert f"  {name} " in out
        assert f" {purpose}\n" in out


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_no_command_is_an_error(fastreid, debug):
    code, out, err = fastreid(*debug)
    assert (code, out) == (1 if debug else 2, "")
    assert "required: COMMAND (see fastreid --help)" in err


def test_an_unknown_command_is_one_line_with_the_nearest_name(fastreid):
    answer = fastreid("trian", "--help")
    assert answer == (2, "", "error: unknown command 'trian' (see fastreid --help). Did you mean 'train'?\n")


def test_a_package_without_which_nothing_starts_is_one_line(fastreid):
    code, out, err = fastreid("check", "--config-file", "any.yml")
    assert (code, out) == (2, "")
    assert err in {
        f"error: Python package {name} is missing; pip install -r requirements.txt\n"
        for name in ("numpy", "torch")
    }
    code, _, err = fastreid("--debug", "check")
    assert code == 1
    assert "Traceback" in err


def test_a_command_has_its_own_options_and_name():
    command = [sys.executable, "-c", "from fastreid.cli import main; main()"]
    done = subprocess.run([*command, "compare", "--no-such"], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 2
    missing = "the following arguments are required: --methods, --output"
    assert done.stderr == f"error: {missing} (see fastreid compare --help)\n"
