"""The command line: arguments in any order, one line for bad input, nothing written."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from worlds.options import REPO, tiny_cfg
from worlds.programs import run_tool

from fastreid.engine import default_argument_parser
from fastreid.utils.checkpoint import load_checkpoint
from fastreid.utils.errors import UserError


@pytest.fixture
def train_net(monkeypatch, tmp_path):
    """Calls the program in an empty folder; returns its exit code."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_tool("train_net.py", *arguments).code


@pytest.mark.parametrize(
    "line",
    [
        "--config-file a.yml --num-gpus 2 MODEL.DEVICE cpu SOLVER.BASE_LR 0.1",
        "MODEL.DEVICE cpu --config-file a.yml SOLVER.BASE_LR 0.1 --num-gpus 2",
        "--num-gpus=2 MODEL.DEVICE cpu SOLVER.BASE_LR 0.1 --config-file=a.yml",
    ],
)
def test_options_and_overrides_may_stand_in_any_order(line):
    args = default_argument_parser().parse_intermixed_args(line.split())
    assert (args.config_file, args.num_gpus, args.resume, args.eval_only) == ("a.yml", 2, False, False)
    assert args.opts == ["MODEL.DEVICE", "cpu", "SOLVER.BASE_LR", "0.1"]


def test_negative_values_are_values():
    args = default_argument_parser().parse_intermixed_args(["MODEL.LOSSES.CE.EPSILON", "-1", "--resume"])
    assert args.opts == ["MODEL.LOSSES.CE.EPSILON", "-1"]
    assert args.resume


def test_unknown_options_are_a_user_error():
    with pytest.raises(UserError, match="--resum "):
        default_argument_parser().parse_intermixed_args(["--resum"])


def test_debug_shows_where_the_error_came_from(train_net):
    with pytest.raises(UserError, match="SOLVER.BASE_LT"):
        train_net("--debug", "SOLVER.BASE_LT", "1")


@pytest.fixture
def config(noise_cargo, tmp_path):
    """The file of a tiny training."""
    (tmp_path / "tiny.yml").write_text(tiny_cfg(tmp_path).dump())
    return tmp_path / "tiny.yml"


def test_training_writes_checkpoints_and_resumes_by_command(train_net, config, tmp_path):
    assert train_net("--config-file", config) == 0
    assert train_net("--config-file", config, "--resume") == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"model_best.pth", "model_final.pth", "last_checkpoint", "metrics.json", "config.yaml"} <= names
    log = (tmp_path / "run/log.txt").read_text()
    assert "1 process" in log  # what was logged before the folder existed is there too
    assert "Resumed from" in log


def test_evaluation_takes_what_the_data_decided_from_the_checkpoint(train_net, config, tmp_path):
    assert train_net("--config-file", config) == 0
    shutil.rmtree(tmp_path / "CARGO/train")
    for weights in ("run/model_best.pth", "bare.pth"):
        options = ("MODEL.WEIGHTS", tmp_path / weights, "OUTPUT_DIR", tmp_path / "scores")
        torch.save(load_checkpoint(tmp_path / "run/model_best.pth")["model"], tmp_path / "bare.pth")
        assert train_net("--eval-only", "--config-file", config, *options) == 0
    logs = "".join(path.read_text() for path in tmp_path.rglob("log.txt"))
    scores = re.findall(r"^\| CARGO_AG .*$", logs, re.MULTILINE)
    assert len(scores) == 3
    assert len(set(scores)) == 1


def test_the_program_runs_from_the_checkout_without_installation(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "tools/train_net.py", "--config-file", tmp_path / "none.yml"],
        cwd=REPO,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: config file not found")
    assert len(run.stderr.splitlines()) == 1
