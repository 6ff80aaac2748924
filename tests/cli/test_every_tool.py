"""What all tools have in common, whatever they do."""

import sys
from pathlib import Path

import pytest

from fastreid.utils.errors import UserError

TOOLS = Path(__file__).resolve().parents[2] / "tools"
COMMANDS = [
    *([path.name] for path in sorted(TOOLS.glob("*.py")) if path.name not in ("search.py", "benchmark.py")),
    *(["search.py", command] for command in ("build", "query")),
    *(["benchmark.py", path.stem] for path in sorted(TOOLS.glob("benchmarks/*.py"))),
]


@pytest.fixture
def start(load_tool, monkeypatch):
    """Runs a tool in this process, with the command line that it is given."""

    def run(name: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        tool = load_tool(name)
        getattr(tool, "run", tool.main)()

    return run


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_names_the_option_for_the_traceback(start, capsys, command):
    with pytest.raises(SystemExit) as stopped:
        start(*command, "--help")
    assert stopped.value.code == 0
    assert "--debug" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_error_is_one_line_or_with_that_option_an_exception(start, capsys, command):
    name, *subcommand = command
    with pytest.raises(SystemExit) as stopped:
        start(name, *subcommand, "--no-such-option")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for arguments in ((*subcommand, "--debug"), ("--debug", *subcommand)):
        with pytest.raises(UserError):
            start(name, *arguments, "--no-such-option")
