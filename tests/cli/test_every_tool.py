"""What all commands have in common, whatever they do, and the small programs that run them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from worlds.programs import run_tool

from fastreid.cli import COMMANDS
from fastreid.utils.errors import UserError

TOOLS = Path(__file__).resolve().parents[2] / "tools"
PROGRAMS = sorted(path for path in TOOLS.glob("*.py") if path.name != "checkout.py")
EVERY = [
    *([path.name] for path in PROGRAMS if path.name not in ("search.py", "benchmark.py")),
    *(["search.py", command] for command in ("build", "query")),
    *(["benchmark.py", name] for name in ("evaluation", "generation", "gpu", "loader")),
]


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_help_names_the_option_for_the_traceback(command):
    code, out, _ = run_tool(*command, "--help")
    assert code == 0
    assert "--debug" in out


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_an_error_is_one_line_or_with_that_option_an_exception(command):
    code, _, error = run_tool(*command, "--no-such-option")
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    name, *part = command
    for arguments in ((*part, "--debug"), ("--debug", *part)):
        with pytest.raises(UserError):
            run_tool(name, *arguments, "--no-such-option")


def test_every_command_has_a_program_of_its_own():
    names = {path.stem for path in PROGRAMS} - {"benchmark", "soak"}
    assert names == {module for module, _ in COMMANDS.values()}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_a_program_is_two_lines_behind_what_it_says_of_itself(program):
    says, *lines = [line for line in program.read_text().splitlines() if line]
    assert re.fullmatch(r'""".+\."""', says)
    assert lines[0] == "from checkout import run"
    assert re.fullmatch(r'run\("(fastreid\.cli|tools\.benchmarks)\.\w+", __name__\)', lines[1])
    assert len(lines) == 2


@pytest.mark.parametrize("program", ["train_net.py", "benchmark.py"])
def test_a_program_runs_from_every_folder(program, tmp_path):
    command = [sys.executable, TOOLS / program, "--help"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout.readline().startswith(f"usage: {program} ".encode())
        running.stdout.close()  # as head does, which has had enough
        assert running.stderr.read() == b""
    assert running.returncode == 0
