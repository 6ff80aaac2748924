"""What all commands have in common, whatever they do, and the small programs that run them."""

import re
import subprocess
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pytest
from worlds.programs import run_tool

from fastreid import rendered
from fastreid.cli import COMMANDS
from fastreid.cli.parsers import make_synthetic_benchmark
from fastreid.deploy import image_lists
from fastreid.utils.errors import UserError
from fastreid.visualization import feature_map
from projects.testbed import parser as testbed

TOOLS = Path(__file__).resolve().parents[2] / "tools"
PROGRAMS = sorted(path for path in TOOLS.glob("*.py") if path.name != "checkout.py")
EVERY = [
    *([path.name] for path in PROGRAMS if path.name not in ("search.py", "benchmark.py")),
    *(["search.py", command] for command in ("build", "query")),
    *(["benchmark.py", name] for name in ("evaluation", "generation", "gpu", "loader", "scale", "search")),
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


def test_no_command_line_needs_what_takes_seconds_to_import():
    modules = [f"fastreid.cli.parsers.{module}" for module, _ in COMMANDS.values()]
    modules += [f"tools.benchmarks.parsers.{program}" for program in ("benchmark", "soak")]
    modules += [f"projects.{project}.parser" for project in ("stage2_study", "testbed")]
    script = f"from importlib import import_module; [import_module(m).build_parser() for m in {modules}]"
    heavy = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{script}; import sys; print({{'torch', 'scipy', 'PIL'}} & set(sys.modules))",
        ],
        cwd=TOOLS.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert heavy.stdout == "set()\n"


def test_command_lines_offer_what_there_is():
    def choices(program: str, option: str) -> tuple[str, ...]:
        parser = import_module(f"fastreid.cli.parsers.{program}").build_parser()
        return tuple(parser._option_string_actions[option].choices)

    assert choices("visualize", "--map") == tuple(feature_map.METHODS)
    assert choices("extract_features", "--split") == image_lists.SPLITS
    assert choices("make_synthetic_benchmark", "--view-gap") == rendered.VIEW_GAPS
    gaps = testbed.build_parser()._option_string_actions["--view-gaps"].choices
    assert gaps == rendered.VIEW_GAPS
    assert make_synthetic_benchmark.BENCHMARKS == tuple(rendered.LAYOUTS)
    args = make_synthetic_benchmark.build_parser().parse_args(["--benchmark", "CARGO", "--root", "x"])
    default = rendered.BenchmarkSpec()
    assert all(getattr(args, name) == value for name, value in asdict(default).items())


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
