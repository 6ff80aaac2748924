"""A program whose output leads nowhere: a pipe without a reader, a full disk, streams that are closed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from fastreid.utils.cli import CommandLineParser, command, exit_during_imports
exit_during_imports(__name__)

@command(CommandLineParser, only_logs={only_logs})
def main(args):
    with open({result!r}, "w") as file:
        for number in range(3):
            print("line", number, flush=True)
            print("to stderr", file=sys.stderr, flush=True)
        file.write("all of it")
    print("a line that is buffered")

sys.exit(main())
"""


@pytest.fixture
def program(tmp_path):
    """Runs a program in a shell, with redirections; gives the exit code, stdout and stderr."""

    def run(redirections: str, only_logs: bool = False) -> tuple[int, str, str]:
        (tmp_path / "program.py").write_text(
            PROGRAM.format(result=str(tmp_path / "result"), only_logs=only_logs)
        )
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{sys.executable} {tmp_path}/program.py {redirections}"],
            env=os.environ | {"PYTHONPATH": str(REPO)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (tmp_path / "result").read_text() == "all of it"
        return done.returncode, done.stdout, done.stderr

    return run


TO_STDERR = "to stderr\n" * 3


@pytest.mark.parametrize(
    ("redirections", "out", "err"),
    [
        ("| head -n 1", "line 0\n", TO_STDERR),
        (">&-", "", TO_STDERR),
        ("2>/dev/full", "line 0\nline 1\nline 2\na line that is buffered\n", ""),
        ("2>&-", "line 0\nline 1\nline 2\na line that is buffered\n", ""),
        ("<&- >&- 2>&-", "", ""),
    ],
)
def test_it_goes_on_and_ends_quietly(redirections, out, err, program):
    assert program(redirections) == (0, out, err)


@pytest.mark.parametrize("only_logs", [False, True])
def test_what_was_to_be_printed_on_a_full_disk_is_one_line_unless_it_was_a_log(only_logs, program):
    line = "" if only_logs else "error: the output cannot be printed: No space left on device\n"
    code = 0 if only_logs else 2
    assert program(">/dev/full", only_logs) == (code, "", TO_STDERR + line)
    assert program(">/dev/full 2>&1", only_logs) == (code, "", "")


def test_a_name_that_is_no_text_is_escaped_also_in_a_process_that_was_spawned():
    code = r"from fastreid.utils.output import secure_output; secure_output(); print('caf\udce9')"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout == "caf\\udce9\n"
