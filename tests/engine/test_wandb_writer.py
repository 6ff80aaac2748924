"""Scalars in Weights & Biases: what it is asked for, and what it keeps when nothing may be sent."""

import random
import sys
import time
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from fastreid.utils.errors import UserError
from fastreid.utils.events import EventStorage
from fastreid.utils.wandb_writer import WandbWriter


def write(writer: WandbWriter, **scalars: float) -> None:
    storage = EventStorage()
    storage.iteration = 7
    writer.write(storage, scalars)
    writer.close()


@pytest.fixture
def stand_in(monkeypatch):
    """A module in wandb's place that keeps what it is asked for."""
    module = ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)
    module.runs, module.logged, module.errors = [], [], SimpleNamespace(Error=OSError)
    module.Settings = lambda **settings: settings
    run = SimpleNamespace(log=lambda *args, **kw: module.logged.append((args, kw)), finish=lambda: None)
    module.init = lambda **options: module.runs.append(options) or run
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_a_resumed_run_goes_on_under_its_number_and_a_fresh_one_gets_another(stand_in, tmp_path):
    for start in (0, 5, 0):
        write(WandbWriter(tmp_path, "project", {"MODEL": {"SEED": 1}}, start), loss=0.5)
    numbers = [run["id"] for run in stand_in.runs]
    assert numbers[0] == numbers[1] != numbers[2]
    assert {(run["project"], run["name"], run["dir"]) for run in stand_in.runs} == {
        ("project", tmp_path.name, str(tmp_path))
    }
    assert stand_in.runs[0]["config"] == {"MODEL": {"SEED": 1}}
    assert stand_in.logged[0] == (({"loss": 0.5},), {"step": 7})


def test_a_refusal_is_one_line(stand_in, tmp_path):
    def refuse(**options):
        raise stand_in.errors.Error("no key")

    stand_in.init = refuse
    with pytest.raises(UserError, match="WANDB_PROJECT 'project': no key; run `wandb login`"):
        WandbWriter(tmp_path, "project", {})


def test_a_training_logs_to_the_project_of_its_configuration(stand_in, toy_trainer, toy_cfg):
    toy_cfg.WANDB_PROJECT = "people"
    toy_trainer(toy_cfg).train()
    assert [run["project"] for run in stand_in.runs] == ["people"]
    assert stand_in.runs[0]["config"]["WANDB_PROJECT"] == "people"
    assert any("total_loss" in scalars for (scalars,), _ in stand_in.logged)


def test_a_missing_package_is_told_before_anything_is_built(monkeypatch, toy_trainer, toy_cfg):
    monkeypatch.setitem(sys.modules, "wandb", None)
    toy_cfg.WANDB_PROJECT = "people"
    monkeypatch.setattr(toy_trainer, "build_model", None)
    with pytest.raises(UserError, match="package wandb is missing; pip install wandb"):
        toy_trainer(toy_cfg)


def test_offline_the_scalars_lie_in_the_folder_and_no_random_number_is_drawn(monkeypatch, tmp_path):
    pytest.importorskip("wandb")  # tests/requirements.txt installs it
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    state = random.getstate()
    write(WandbWriter(tmp_path, "project", {"MODEL": {"SEED": 1234}}), **{"CARGO/mAP": 61.0625})
    assert random.getstate() == state
    number = (tmp_path / "wandb_run.txt").read_text().strip()
    (record,) = tmp_path.glob(f"wandb/offline-run-*/run-{number}.wandb")

    def kept() -> list[bool]:
        return [text in record.read_bytes() for text in (b"CARGO/mAP", b"61.0625", b"1234")]

    deadline = time.monotonic() + 20  # the process of wandb that writes it may need a moment after `finish`
    while not all(kept()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(kept())
