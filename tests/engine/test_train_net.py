"""The command line: arguments in any order, one line for bad input, nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_training import ToyModel

from fastreid.cli import train_net as program
from fastreid.engine import default_argument_parser
from fastreid.engine import trained_model as trained_model_module
from fastreid.utils.errors import UserError

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def train_net(monkeypatch, tmp_path):
    """Calls the program in this process, in an empty folder; returns its exit code."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> int:
        try:
            program.main(list(map(str, arguments)))
        except SystemExit as stopped:
            return stopped.code
        return 0

    return call


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


def test_training_writes_checkpoints_and_resumes_by_command(train_net, toy_cfg, toy_world, tmp_path):
    config = tmp_path / "toy.yml"
    config.write_text(toy_cfg.dump())
    assert train_net("--config-file", config) == 0
    assert train_net("--config-file", config, "--resume") == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"model_best.pth", "model_final.pth", "last_checkpoint", "metrics.json", "config.yaml"} <= names
    log = (tmp_path / "run/log.txt").read_text()
    assert "1 process" in log  # what was logged before the folder existed is there too
    assert "Resumed from" in log


@pytest.fixture
def evaluation_of_toys(monkeypatch, train_net):
    """--eval-only on the toy model; gives what is evaluated."""
    evaluated = []
    monkeypatch.setattr(program, "build_test_datasets", lambda cfg: [])
    monkeypatch.setattr(
        trained_model_module, "build_model", lambda cfg: ToyModel(cfg.MODEL.HEADS.NUM_CLASSES)
    )
    monkeypatch.setattr(program, "evaluate_protocols", lambda cfg, model, _: evaluated.append(model))
    return evaluated


def test_evaluation_takes_the_number_of_identities_from_the_checkpoint(
    train_net, evaluation_of_toys, tmp_path
):
    source = ToyModel(9)
    torch.save({"model": source.state_dict(), "meta": {"stage": 1, "num_classes": 9}}, tmp_path / "model.pth")
    options = ("MODEL.WEIGHTS", tmp_path / "model.pth", "OUTPUT_DIR", tmp_path / "run", "MODEL.DEVICE", "cpu")
    assert train_net("--eval-only", *options) == 0
    (model,) = evaluation_of_toys
    assert torch.equal(model.heads.weight, source.heads.weight)
    assert not model.training
    torch.save(source.state_dict(), tmp_path / "model.pth")
    assert train_net("--eval-only", *options) == 0
    assert torch.equal(evaluation_of_toys[1].backbone[0].weight, source.backbone[0].weight)


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
