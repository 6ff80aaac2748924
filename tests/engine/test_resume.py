"""A training that was interrupted and resumed is, bit for bit, the one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_training import ToyModel
from toy_workers import train_left_alone_and_killed

from fastreid.engine import HookBase, launch
from fastreid.utils.checkpoint import load_checkpoint
from fastreid.utils.errors import UserError

TIMES = ("time", "data_time")


class Interrupted(Exception):
    """Stands for a kill: nothing of the trainer survives it but the files."""


class StopAt(HookBase):
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_step(self) -> None:
        if self.trainer.iteration == self.iteration:
            raise Interrupted


class SignalAt(StopAt):
    def __init__(self, iteration: int, number: signal.Signals) -> None:
        super().__init__(iteration)
        self.number = number

    def before_step(self) -> None:
        if self.trainer.iteration == self.iteration:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def run(toy_trainer):
    """`run(cfg, resume, hook, …, KEY={…}, …)`: a training to its end; gives the trainer."""

    def train(cfg, resume=False, *extra_hooks, kind=toy_trainer, **changes):
        cfg = cfg.clone()
        cfg.merge_values(changes, source="test")
        trainer = kind(cfg)
        trainer.register_hooks(extra_hooks)
        trainer.resume_or_load(resume)
        trainer.train()
        return trainer

    return train


def logged(folder) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def same_state(first: dict, second: dict) -> bool:
    """Equality of nested containers, tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_state(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same_state, first, second))
    return first == second


@pytest.fixture
def uninterrupted(toy_cfg, run, tmp_path):
    """Final checkpoint and metrics of the run without interruption; the folder is then free again."""
    trainer = run(toy_cfg)
    folder = tmp_path / "run"
    final = load_checkpoint(folder / "model_final.pth")
    assert trainer.iteration == 12
    metrics = logged(folder)
    folder.rename(tmp_path / "uninterrupted")
    return final, metrics


def check_same(uninterrupted, folder) -> None:
    final, metrics = uninterrupted
    resumed = load_checkpoint(folder / "model_final.pth")
    final["meta"].pop("config")
    resumed["meta"].pop("config")
    for state in (final, resumed):
        for name in TIMES:
            state["events"]["history"].pop(name)
    assert same_state(resumed, final)
    assert logged(folder) == metrics


@pytest.mark.parametrize("killed_at", [4, 6, 11])
def test_a_kill_costs_the_iterations_since_the_last_checkpoint_and_changes_nothing(
    killed_at, uninterrupted, toy_cfg, run, tmp_path
):
    with pytest.raises(Interrupted):
        run(toy_cfg, False, StopAt(killed_at))
    trainer = run(toy_cfg, resume=True)
    assert trainer.model.starts == 0
    check_same(uninterrupted, tmp_path / "run")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_a_resumed_run_keeps_nothing_of_the_file_that_it_goes_on_from(toy_trainer, toy_cfg, run, tmp_path):
    """The file is mapped, and the disk would keep it after it is replaced."""
    with pytest.raises(Interrupted):
        run(toy_cfg, False, StopAt(6))
    trainer = toy_trainer(toy_cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.iteration
    assert str(tmp_path / "run") not in Path("/proc/self/maps").read_text()


def test_checkpoints_in_the_middle_of_an_epoch(uninterrupted, toy_cfg, run, tmp_path):
    solver = {"SOLVER": {"CHECKPOINT_ITERS": 3, "CHECKPOINT_PERIOD": 0}}
    for killed_at in (4, 8, 10):
        with pytest.raises(Interrupted):
            run(toy_cfg, True, StopAt(killed_at), **solver)
    run(toy_cfg, resume=True, **solver)
    check_same(uninterrupted, tmp_path / "run")


@pytest.fixture
def without_nohup():
    """SIGHUP as programs have it that did not ask to ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("without_nohup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_stops_with_its_exit_code(number, uninterrupted, toy_cfg, run, tmp_path):
    before = signal.getsignal(number)
    for iteration in (1, 3, 6):  # 3: the last iteration of an epoch
        with pytest.raises(SystemExit) as stopped:
            run(toy_cfg, True, SignalAt(iteration, number))
        assert stopped.value.code == 128 + number
        assert load_checkpoint(tmp_path / "run/model_latest.pth")["iteration"] == iteration + 1
    assert signal.getsignal(number) is before
    run(toy_cfg, resume=True)
    check_same(uninterrupted, tmp_path / "run")


def test_a_signal_during_an_evaluation_stops_at_once_and_the_evaluation_is_made_up(
    uninterrupted, toy_cfg, toy_trainer, run, tmp_path
):
    class Interrupted(toy_trainer):
        @classmethod
        def test(cls, cfg, model, test_sets):
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the signal did not stop the evaluation")

    with pytest.raises(SystemExit) as stopped:
        run(toy_cfg, kind=Interrupted)
    assert stopped.value.code == 143
    assert not (tmp_path / "run/evaluations.json").exists()
    run(toy_cfg, resume=True)
    check_same(uninterrupted, tmp_path / "run")
    assert [entry["epoch"] for entry in json.loads((tmp_path / "run/evaluations.json").read_text())] == [
        1,
        2,
        3,
    ]


def test_a_crash_in_the_evaluation_costs_no_epoch(toy_cfg, toy_trainer, run, tmp_path):
    toy_trainer.means = [-1]
    with pytest.raises(AssertionError):
        run(toy_cfg)
    assert load_checkpoint(tmp_path / "run/model_0001.pth")["epoch"] == 1


def test_a_checkpoint_holds_the_whole_state_of_a_training(toy_cfg, toy_trainer):
    trainer = toy_trainer(toy_cfg)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=7)
    trainer.iteration, trainer.epoch, trainer.best_metric = 6, 1, 41.5
    trainer.finite_check.skipped = 3
    state = trainer.state_dict()
    expected = {"model", "optimizer", "scheduler", "grad_scaler", "skipped", "epoch", "iteration", "rng"}
    assert expected | {"best_metric", "hooks", "events", "iters_per_epoch", "meta"} == state.keys()
    assert {"python", "numpy", "torch"} <= state["rng"][0].keys()

    resumed = toy_trainer(toy_cfg)
    resumed.grad_scaler = torch.amp.GradScaler("cpu")
    resumed.load_state_dict(state, "file")
    assert same_state(resumed.state_dict(), state)
    assert resumed.grad_scaler.get_scale() == 8.0


def test_a_checkpoint_from_before_the_rules_of_training_had_a_number_does_not_go_on(toy_cfg, toy_trainer):
    trainer = toy_trainer(toy_cfg)
    state = trainer.state_dict()
    del state["meta"]["rules"]
    with pytest.raises(UserError, match="file was written by another version"):
        trainer.load_state_dict(state, "file")


def test_the_best_model_survives_a_resume(toy_cfg, toy_trainer, run, tmp_path):
    toy_trainer.means = [10.0, 30.0]
    with pytest.raises(Interrupted):
        run(toy_cfg, False, StopAt(8))
    assert load_checkpoint(tmp_path / "run/model_best.pth")["epoch"] == 2
    toy_trainer.means = [20.0]
    trainer = run(toy_cfg, resume=True)
    assert toy_trainer.evaluated == [10.0, 30.0, 20.0]
    assert trainer.best_metric == 30.0
    best = load_checkpoint(tmp_path / "run/model_best.pth")
    assert (best["epoch"], best["best_metric"]) == (2, 30.0)


def test_without_a_checkpoint_a_resume_starts_afresh_and_says_so(toy_cfg, run, caplog_fastreid):
    trainer = run(toy_cfg, resume=True)
    assert trainer.model.starts == 1
    assert "no checkpoint" in caplog_fastreid.text


def test_a_finished_run_is_left_as_it_is(toy_cfg, toy_trainer, run, tmp_path):
    run(toy_cfg)
    before = (tmp_path / "run/model_final.pth").stat().st_mtime_ns
    run(toy_cfg, resume=True)
    assert len(toy_trainer.evaluated) == 3
    assert (tmp_path / "run/model_final.pth").stat().st_mtime_ns == before


def test_a_fresh_run_keeps_the_files_of_an_earlier_one(toy_cfg, run, tmp_path):
    run(toy_cfg)
    earlier = {p.name: p.read_bytes() for p in (tmp_path / "run").glob("model_*.pth")}
    run(toy_cfg)
    kept = {p.name: p.read_bytes() for p in (tmp_path / "run/earlier.1").glob("model_*.pth")}
    assert kept == earlier
    assert len(logged(tmp_path / "run")) == len(logged(tmp_path / "run/earlier.1"))


def test_a_run_goes_on_by_itself_after_the_kill_of_a_random_rank(toy_cfg, tmp_path):
    rank, iteration = random.randrange(2), random.randrange(12)
    args = (toy_cfg.dump(), str(tmp_path), rank, iteration)
    launch(train_left_alone_and_killed, 2, args=args, device="cpu", max_restarts=1)
    killed = load_checkpoint(tmp_path / "killed/model_final.pth"), logged(tmp_path / "killed")
    check_same(killed, tmp_path / "alone")
    assert not (tmp_path / "killed/earlier.1").exists()


@pytest.fixture
def started(monkeypatch):
    """`started(agent, count)`: as the process of a run that this agent has restarted `count` times."""

    def set_environment(agent: str, count: int) -> None:
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", f"/tmp/{agent}/attempt_{count}/0/error.json")

    return set_environment


@pytest.mark.parametrize("iteration", [2, 5])
def test_a_restarted_run_goes_on_also_before_its_first_checkpoint(iteration, toy_cfg, run, started, tmp_path):
    started("one", 0)
    with pytest.raises(Interrupted):
        run(toy_cfg, False, StopAt(iteration))
    started("one", 1)
    run(toy_cfg)
    assert [line["iteration"] for line in logged(tmp_path / "run") if "lr" in line] == list(range(1, 13))
    assert not (tmp_path / "run/earlier.1").exists()


def test_a_run_killed_before_it_began_does_not_go_on_from_an_earlier_one(toy_cfg, run, started, tmp_path):
    started("one", 0)
    run(toy_cfg)
    started("another", 1)
    assert run(toy_cfg).model.starts == 1
    assert (tmp_path / "run/earlier.1/model_final.pth").exists()


def test_another_config_is_listed_and_refused_where_it_changes_the_run(toy_cfg, run, caplog_fastreid):
    with pytest.raises(Interrupted):
        run(toy_cfg, False, StopAt(5))
    with pytest.raises(UserError, match=r"SOLVER.BASE_LR 0.5, was 0.01") as error:
        run(toy_cfg, True, SOLVER={"BASE_LR": 0.5, "LOG_PERIOD": 2})
    assert "LOG_PERIOD" not in str(error.value)
    assert "another SOLVER.LOG_PERIOD: 2, was 1" in caplog_fastreid.text
    with pytest.raises(UserError, match="SOLVER.MAX_EPOCH"):  # the cosine would be another
        run(toy_cfg, True, SOLVER={"MAX_EPOCH": 5})
    run(toy_cfg, True, SOLVER={"LOG_PERIOD": 2})


def test_two_runs_do_not_share_a_folder(toy_cfg, run, tmp_path):
    (tmp_path / "run").mkdir()
    program = (
        "import fcntl, sys; lock = open(sys.argv[1], 'a'); fcntl.lockf(lock, fcntl.LOCK_EX);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "run/.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="in use by another training run"):
            run(toy_cfg)
        other.stdin.close()
    run(toy_cfg)


def test_what_a_killed_run_left_half_written_is_removed(toy_cfg, run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.model_0001.pth.123.tmp").write_text("half")
    run(toy_cfg)
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_other_data_is_refused(toy_cfg, toy_trainer, run):
    with pytest.raises(Interrupted):
        run(toy_cfg, False, StopAt(5))
    toy_trainer.epoch_length = 9
    with pytest.raises(UserError, match="4 iterations an epoch, now there are 9"):
        run(toy_cfg, True)


def test_weights_alone_cannot_be_resumed(toy_cfg, run, tmp_path):
    (tmp_path / "run").mkdir()
    torch.save(ToyModel().state_dict(), tmp_path / "run/model_0001.pth")
    with pytest.raises(UserError, match="name it in MODEL.WEIGHTS"):
        run(toy_cfg, True)
