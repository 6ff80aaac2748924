"""Signals to the real program, in both stages: it saves, says how to go on, and going on changes nothing."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from tiny_runs import (
    EPOCHS,
    ITERATIONS,
    arguments,
    children,
    final_state,
    finish,
    logged,
    read_until,
    same,
    start,
    train,
)
from worlds.options import REPO

from fastreid.utils.signals import SAME_REQUEST


@pytest.mark.parametrize(
    ("stage", "number", "code", "workers"),
    [(1, signal.SIGTERM, 143, (2, 0)), (2, signal.SIGINT, 130, (0, 2))],
)
def test_an_interrupted_run_that_is_resumed_equals_the_uninterrupted_one(
    stage, number, code, workers, trained, cargo, tmp_path
):
    weights = trained[1] / "model_best.pth" if stage == 2 else ""
    first, then = (
        arguments(stage, cargo, tmp_path / "run", "MODEL.WEIGHTS", weights, "DATALOADER.NUM_WORKERS", count)
        for count in workers
    )
    run = start(*first)
    read_until(run, f"iter {ITERATIONS + 1}/")
    for pid in (*children(run), run.pid):  # as a scheduler does
        os.kill(pid, number)
    output = finish(run, code)
    stopped_after = int(re.search(r"Stopped after iteration (\d+)", output)[1])
    assert ITERATIONS < stopped_after < EPOCHS * ITERATIONS  # in the middle of an epoch
    assert "the same command with --resume goes on" in output
    assert "Traceback" not in output

    resumed = train(*then, "--resume")
    assert resumed.code == 0
    assert f"{stopped_after} iterations done" in resumed.out
    assert same(final_state(tmp_path / "run"), final_state(trained[stage]))
    assert logged(tmp_path / "run") == logged(trained[stage])


def test_a_second_signal_stops_at_once_without_saving(cargo, tmp_path):
    slow = ["SOLVER.IMS_PER_BATCH", 32, "DATALOADER.NUM_INSTANCE", 4, "MODEL.BACKBONE.NUM_LAYERS", 40]
    run = start(*arguments(1, cargo, tmp_path / "run", *slow, "SOLVER.ITERS_PER_EPOCH", 1000))
    read_until(run, "iter 1/")
    run.send_signal(signal.SIGTERM)
    output = read_until(run, "SIGTERM")
    assert "once more: stop at once" in output
    run.send_signal(signal.SIGSTOP)  # in the middle of the iteration
    time.sleep(SAME_REQUEST)
    run.send_signal(signal.SIGTERM)
    run.send_signal(signal.SIGCONT)
    finish(run, -signal.SIGTERM)
    assert not list((tmp_path / "run").glob("model_*.pth"))


def test_a_run_whose_output_nobody_reads_any_more_trains_to_its_end(cargo, tmp_path):
    run = start(*arguments(1, cargo, tmp_path / "run", "SOLVER.MAX_EPOCH", 1))
    read_until(run, "Python")
    run.stdout.close()  # as head does
    assert run.wait(600) == 0
    assert f"iter {ITERATIONS}/{ITERATIONS}" in (tmp_path / "run" / "log.txt").read_text()
    assert {"model_final.pth", "results.json"} <= set(os.listdir(tmp_path / "run"))


def test_ctrl_c_before_training_ends_the_program_without_a_traceback(cargo, tmp_path):
    run = start(*arguments(1, cargo, tmp_path / "run"))
    read_until(run, "Python")  # the first line: the data are read and the model is built after it
    run.send_signal(signal.SIGINT)
    assert finish(run, 130) == "stopped by SIGINT: nothing to save\n"


SLOW = "import time; print('importing', flush=True); time.sleep(60)"
TOOLS = sorted(path for path in (REPO / "tools").glob("*.py") if path.name != "checkout.py")
NEEDED = {  # on the command line, which is read before the imports
    "benchmark": ["loader"],
    "compare_methods": ["--methods", "a.yml", "--output", "b"],
    "compare_runs": ["--run", "a=b"],
    "convert_checkpoint": ["--model", "a", "--config-file", "b", "--output", "c"],
    "extract_features": ["--model", "a", "--folder", "b", "--output", "c"],
    "make_csv": ["a", "--output", "b"],
    "make_synthetic_benchmark": ["--benchmark", "CARGO", "--root", "a"],
    "search": ["build", "--features", "a", "--index", "b"],
    "visualize": ["--output", "a"],
}
CONSOLE = ["-c", "from fastreid.cli import main; main()", "train"]


def interrupt_imports(number: signal.Signals, folder, *command) -> tuple[int, str]:
    """Send `number` to a Python program, and all its processes, when it says that it imports."""
    path = os.pathsep.join([str(folder), str(REPO)])
    with subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        read_until(run, "importing")
        os.killpg(run.pid, number)
        output, _ = run.communicate(timeout=120)
    return run.returncode, output


STARTS = [*([tool, *NEEDED.get(tool.stem, ())] for tool in TOOLS), CONSOLE]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", STARTS, ids=str)
def test_a_tool_that_is_interrupted_while_it_imports_says_so_in_one_line(program, number, tmp_path):
    for library in ("numpy", "torch"):
        (tmp_path / f"{library}.py").write_text(SLOW)
    code, output = interrupt_imports(number, tmp_path, *program)
    assert (code, output) == (128 + number, f"stopped by {number.name}\n")


def test_ctrl_c_while_the_ranks_of_a_run_import_leaves_no_traceback_and_no_rank(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from fastreid.utils.cli import exit_during_imports\n"
        "exit_during_imports(__name__)\n"
        "if __name__ == '__mp_main__':\n"
        f"    {SLOW}\n"
        "from fastreid.engine import launch\n"
        "if __name__ == '__main__':\n"
        "    launch(print, 2, device='cpu')\n"
    )
    code, output = interrupt_imports(signal.SIGINT, tmp_path, program)
    assert code == 130
    assert output in ("", "importing\n")  # the other rank's
