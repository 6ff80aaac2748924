"""`tools/benchmark.py gpu`: the whole program, at tiny size on the CPU."""

import json
import time

import pytest
import torch
from worlds.programs import run_tool

from fastreid.utils.errors import UserError
from tools.benchmarks import gpu
from tools.benchmarks.figures import Figure, markdown
from tools.benchmarks.gpu_parts import Bench

PRECISIONS = ("bfloat16", "float32")
TESTS = """import pytest
@pytest.mark.cuda
def test_good(): pass
@pytest.mark.cuda
def test_bad(): assert False
def test_of_no_concern(): assert False
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The JSON and the table of a run of all parts, whose CUDA tests are one good and one bad.

    What is compiled is traced, and then runs as it is: without a compiler's minutes.
    """
    compile_it = torch.nn.Module.compile
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "test_cuda.py").write_text(TESTS)
    options = ("--device", "cpu", "--tests", folder / "test_cuda.py", "--output", folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", lambda module: compile_it(module, backend="eager"))
        code, out, err = run_tool("benchmark.py", "gpu", *options)
    assert code == 0, err
    table = (folder / "out/gpu.md").read_text()
    assert out == f"{table}\n{folder}/out/gpu.json\n{folder}/out/gpu.md\n"
    return json.loads((folder / "out/gpu.json").read_text()), table


def test_every_part_gives_figures_without_targets_on_the_cpu(ran):
    content, table = ran
    assert content["left_out"] == {}
    figures = [Figure(*(each[name] for name in Figure._fields)) for each in content["figures"]]
    assert list(dict.fromkeys(figure.part for figure in figures)) == list(gpu.PARTS)
    assert all(figure.at_least is None and figure.value >= 0 for figure in figures)
    values = {figure.what: figure.value for figure in figures}
    assert values["of 2 tests of CUDA passed"] == 50
    assert values["lowest cosine to the plain loop's features"] > 0.99999
    assert values["loss over the plain step's"] == pytest.approx(1, rel=1e-4)
    assert values["features in float32, lowest cosine to the CPU's"] > 0.99999
    assert 0.999 < values["features in bf16, lowest cosine to the CPU's"] < 0.99999
    assert values["difference of mAP to that of sorting"] < 1e-6
    assert sum(figure.part == "settings" for figure in figures) == 8
    assert values.keys() >= {f"product of two matrices of 1,024 squared, {name}" for name in PRECISIONS}
    assert content["device"] == "CPU"
    assert all(f"| {figure.what} |" in table for figure in figures)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_card_it_says_so(tmp_path):
    code, out, err = run_tool("benchmark.py", "gpu", "--output", tmp_path / "out")
    assert (code, out) == (2, "")
    assert err.startswith("error: this machine has no CUDA device")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_time_ends_the_part_that_runs_and_leaves_out_those_that_follow(monkeypatch):
    bench = Bench(torch.device("cpu"), "tiny", gpu.SIZES["tiny"], "tests")

    def endless():
        while True:
            yield Figure("peak", "", 0.0, "")
            time.sleep(0.01)

    monkeypatch.setattr(bench, "peak", endless)
    start = time.monotonic()
    figures, reason = gpu.attempt(bench, "peak", start + 0.2)
    assert figures  # measured before
    assert reason == "the time is up"
    assert gpu.attempt(bench, "stage1", start + 0.2) == ([], "the time is up")
    assert time.monotonic() - start < 2


MEASURED = Figure("peak", "a product", 1.0, "")
FAILURES = {
    "the GPU's memory is too small": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "RuntimeError: device-side assert": RuntimeError("device-side\nassert"),
    "none of them ran": UserError("none of them ran"),
}


@pytest.mark.parametrize("said", FAILURES)
def test_of_a_part_that_fails_the_rest_is_left_out_with_its_reason(monkeypatch, said):
    def fails():
        yield MEASURED
        raise FAILURES[said]

    bench = Bench(torch.device("cpu"), "tiny", gpu.SIZES["tiny"], "tests")
    monkeypatch.setattr(bench, "peak", fails)
    assert gpu.attempt(bench, "peak", time.monotonic() + 60) == ([MEASURED], said)


def test_the_table_tells_reached_targets_from_missed_ones():
    figures = [
        Figure("a", "speed", 4.2, "x", 4.0),
        Figure("a", "cosine", 0.99, "", 0.999),
        Figure("b", "rate", 12345.6, ""),
    ]
    left_out = {"b": "the time is up", "c": "the time is up"}
    lines = markdown("Title", figures, left_out).splitlines()
    assert lines[4:] == [
        "| a | speed | 4.2 x | at least 4 | reached |",
        "| a | cosine | 0.99 | at least 0.999 | **missed** |",
        "| b | rate | 12,346 |  |  |",
        "",
        "- rest of b left out: the time is up",
        "- c left out: the time is up",
    ]


def test_targets_are_those_of_a_card():
    bench = Bench(torch.device("cpu"), "tiny", gpu.SIZES["tiny"], "tests")
    bench.targets = True
    assert bench.figure("generation", "share", 39.0, "%", 40.0).is_reached is False
