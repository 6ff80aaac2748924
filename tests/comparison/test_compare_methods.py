"""The whole comparison through its command line: trainings are processes of the training program."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from worlds.options import ANY_METHOD, REPO
from worlds.programs import run_tool

STAGE2 = """
_BASE_: {base}
MODEL:
  SDMODEL:
    STANDARDIZE_LATENT: True
    TRAIN_STEP: 100
    UNET_CONFIG: {{PRETRAINED_PATH: "", WIDTHS: [32, 64, 64], TRAINABLE_BLOCK_IDX: [0]}}
    SCHEDULER_CONFIG: {{PRETRAINED_PATH: ""}}
    CON_LEARNER_CONFIG: {{HEADS: 4}}
TEST:
  SDMODEL: {{NUM_INFERENCE_STEPS: 2}}
"""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, cargo) -> list[str]:
    """A comparison of two methods that takes seconds; the second starts from the first one's model."""
    folder = tmp_path_factory.mktemp("comparison")
    files = [REPO / "configs" / "CARGO" / "base_stage1.yml", folder / "generator.yml"]
    files[-1].write_text(STAGE2.format(base=REPO / "configs" / "CARGO" / "base_stage2_step5.yml"))
    own = ["DATASETS.ROOT", cargo, "DATASETS.TESTS", "['CARGO_A2G']", "SOLVER.MAX_EPOCH", "3"]
    command = ["--methods", *files, "--seeds", "1", "--processes", "2", "--batch-size", "8"]
    return list(map(str, [*command, "--output", folder / "out", *ANY_METHOD, *own]))


def output_of(arguments: list[str]) -> Path:
    return Path(arguments[arguments.index("--output") + 1])


def interrupt_when(file: Path, text: str) -> None:
    """Send SIGINT to this process when `file` has `text`; to be called in a thread."""
    deadline = time.monotonic() + 300
    while not (file.exists() and text in file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_comparison_stops_its_trainings_and_goes_on(arguments, monkeypatch):
    """Interrupted once, and then run to its end; a second time there is nothing left to train."""
    output = output_of(arguments)
    elsewhere = output.parent / "elsewhere"  # where another package of the name must not be taken for ours
    (elsewhere / "fastreid").mkdir(parents=True)
    (elsewhere / "fastreid" / "__init__.py").write_text("raise SystemExit('another fastreid')")
    monkeypatch.chdir(elsewhere)
    log = output / "base_stage1" / "seed1" / "console.log"
    threading.Thread(target=interrupt_when, args=(log, "iter 1/"), daemon=True).start()
    code, _, error = run_tool("compare_methods.py", *arguments)
    assert code == 130
    assert "the same command goes on from here" in error
    assert "iter 1/" in log.read_text()
    assert "the same command with --resume goes on" in log.read_text() or "Epoch 3" in log.read_text()

    code, out, error = run_tool("compare_methods.py", *arguments)
    assert code == 0, error
    assert "**mAP over base_stage1**" in out
    for name in ("base_stage1", "generator"):
        assert (output / name / "seed1" / "cost.json").exists()
    started_from = torch.load(output / "generator" / "seed1" / "model_final.pth", weights_only=True)["meta"]
    stage1 = output / "base_stage1" / "seed1" / "model_final.pth"
    assert f"WEIGHTS: {stage1}" in started_from["config"]

    stored = json.loads((output / "comparison.json").read_text())
    entries = json.loads((output / "generator" / "seed1" / "evaluations.json").read_text())
    results = entries[-1]["results"]
    row = next(row for row in stored["rows"] if row["name"] == "generator")
    assert row["method"] == "SDReIDStage2"
    assert row["scores"]["CARGO_A2G"]["values"]["mAP"] == [results["CARGO_A2G"]["mAP"]]

    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.pth")}
    assert run_tool("compare_methods.py", *arguments)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.pth")} == before


def test_a_failed_training_is_named_with_its_last_line(arguments, tmp_path):
    """A picture that cannot be read is found in the training alone."""
    root = tmp_path / "data"
    shutil.copytree(arguments[arguments.index("DATASETS.ROOT") + 1], root)
    for picture in (root / "CARGO" / "train").rglob("*.jpg"):
        picture.write_bytes(b"no picture")
    only = ["--methods", arguments[1], "--seeds", "1", "--output", tmp_path / "out"]
    keys = arguments[arguments.index("MODEL.DEVICE") :]
    keys[keys.index("DATASETS.ROOT") + 1] = str(root)
    code, _, error = run_tool("compare_methods.py", *only, *keys)
    last = error.splitlines()[-1]
    assert code == 2
    assert last.startswith("error: 1 of 1 trainings failed, first ")
    assert "console.log" in last
    assert ".jpg" in last
