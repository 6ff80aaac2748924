"""What the hooks do, and when."""

import json

import pytest
import torch
from toy_training import ToyLoader, ToyModel

from fastreid.engine import HookBase, SimpleTrainer, TrainerBase, hooks
from fastreid.engine.hooks.precise_bn import update_statistics
from fastreid.solver import LRSchedule
from fastreid.utils.errors import UserError
from fastreid.utils.events import ConsoleWriter, JSONWriter


class Journal(TrainerBase):
    """A trainer without a model that notes what it is asked for."""

    def __init__(self, max_epoch: int, iters_per_epoch: int = 2) -> None:
        super().__init__(max_epoch, iters_per_epoch)
        self.model = ToyModel()
        self.events: list = []

    def run_step(self) -> None:
        self.storage.put_scalar("total_loss", float(self.iteration))

    def save_checkpoint(self, name: str, mark_last: bool = True) -> None:
        self.events.append((self.iteration, name))

    def evaluate(self) -> dict:
        self.events.append((self.iteration, "evaluation"))
        return {"P": {"mAP": 1.0, "mean": float(self.iteration)}}


def evaluated_epochs(period: int, epochs: int, tmp_path) -> list[int]:
    trainer = Journal(epochs)
    trainer.register_hooks([hooks.EvalHook(trainer.evaluate, period, tmp_path)])
    trainer.train()
    return [iteration // 2 for iteration, name in trainer.events if name == "evaluation"]


@pytest.mark.parametrize(
    ("period", "epochs", "expected"),
    [(0, 3, [3]), (1, 3, [1, 2, 3]), (2, 4, [2, 4]), (2, 5, [2, 4, 5]), (9, 2, [2])],
)
def test_evaluations_every_period_and_once_at_the_end(period, epochs, expected, tmp_path):
    assert evaluated_epochs(period, epochs, tmp_path) == expected


def test_each_evaluation_comes_after_a_checkpoint_of_its_epoch(tmp_path):
    trainer = Journal(5)
    trainer.register_hooks(
        [hooks.PeriodicCheckpointer(period=3, eval_period=2), hooks.EvalHook(trainer.evaluate, 2, tmp_path)]
    )
    trainer.train()
    assert trainer.events == [
        (4, "model_latest.pth"),
        (4, "evaluation"),
        (4, "model_best.pth"),
        (6, "model_0003.pth"),
        (8, "model_latest.pth"),
        (8, "evaluation"),
        (8, "model_best.pth"),
        (10, "model_final.pth"),
        (10, "evaluation"),
        (10, "model_best.pth"),
    ]


def test_checkpoints_every_some_iterations():
    trainer = Journal(2, iters_per_epoch=5)
    trainer.register_hooks([hooks.PeriodicCheckpointer(period=0, period_iters=4)])
    trainer.train()
    assert trainer.events == [(4, "model_latest.pth"), (8, "model_latest.pth"), (10, "model_final.pth")]


def test_the_model_trains_again_after_an_evaluation(tmp_path):
    trainer = Journal(2)
    modes = []

    def evaluate() -> dict:
        trainer.model.eval()
        return {"P": {"mean": 1.0}}

    class Watch(HookBase):
        def before_step(self) -> None:
            modes.append(trainer.model.training)

    trainer.register_hooks([hooks.EvalHook(evaluate, 1, tmp_path), Watch()])
    trainer.train()
    assert modes == [True] * 4


def test_the_logged_rate_is_the_one_that_the_iteration_used():
    model = ToyModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = LRSchedule(optimizer, lambda iteration, base: base / (1 + iteration))
    trainer = SimpleTrainer(model, optimizer, ToyLoader, 1, 3)
    logged = []

    class Watch(HookBase):
        def before_step(self) -> None:
            self.used = optimizer.param_groups[0]["lr"]

        def after_step(self) -> None:
            logged.append((trainer.storage.latest("lr"), self.used))

    trainer.register_hooks([hooks.LRScheduler(schedule), Watch()])
    trainer.train()
    assert logged == [(1.0, 1.0), (0.5, 0.5), (pytest.approx(1 / 3), pytest.approx(1 / 3))]


def test_frozen_layers_keep_weights_and_statistics_until_their_iteration():
    torch.manual_seed(0)
    model = ToyModel()
    trainer = SimpleTrainer(
        model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1), ToyLoader, 1, 5
    )
    states = []

    class Watch(HookBase):
        def after_step(self) -> None:
            states.append({name: value.clone() for name, value in model.state_dict().items()})

    start = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.register_hooks([hooks.LayerFreeze(model, ["backbone"], iterations=3), Watch()])
    trainer.train()
    frozen = [name for name in start if name.startswith("backbone")]
    for step in range(3):
        assert all(torch.equal(states[step][name], start[name]) for name in frozen)
        assert not torch.equal(states[step]["heads.weight"], start["heads.weight"])
    assert all(not torch.equal(states[3][name], start[name]) for name in frozen)


def test_freezing_an_unknown_layer_is_an_error():
    with pytest.raises(UserError, match=r"FREEZE_LAYERS.*'backbon'.*'backbone'"):
        hooks.LayerFreeze(ToyModel(), ["backbon"], 1)


def test_precise_statistics_are_the_mean_over_the_batches():
    torch.manual_seed(0)
    model = ToyModel().train()
    model.register_buffer("bank", torch.zeros(1))
    forward = model.forward
    model.forward = lambda batch: (model.bank.add_(1), forward(batch))[1]
    batches = [batch for batch, _ in zip(ToyLoader(), range(4), strict=False)]
    norm = model.backbone[1]
    momentum, weight = norm.momentum, model.heads.weight.clone()

    update_statistics(model, batches)

    inputs = [model.backbone[0](batch["images"]) for batch in batches]
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean(0) for x in inputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var(0) for x in inputs]).mean(0))
    assert norm.momentum == momentum
    assert model.bank.item() == 0
    assert torch.equal(model.heads.weight, weight)


def test_precise_statistics_come_before_the_checkpoint_of_an_evaluated_epoch():
    trainer = Journal(2)
    calls = []

    def make_loader(start):
        calls.append(trainer.iteration)
        return ToyLoader(start)

    precise = hooks.PreciseBN(trainer.model, make_loader, num_iter=2, eval_period=0)
    trainer.register_hooks([precise, hooks.PeriodicCheckpointer(1)])
    trainer.train()
    assert calls == [4]


def test_ranks_agree_on_signals_every_ten_iterations_and_after_every_epoch(monkeypatch):
    trainer, agreed = Journal(2, iters_per_epoch=12), []
    trainer.device = torch.device("cpu")
    monkeypatch.setattr(hooks.signals.comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_, **__: agreed.append(trainer.iteration))
    trainer.register_hooks([hooks.StopOnSignal()])
    trainer.train()
    assert agreed == [10, 12, 20, 24]


def test_scalars_are_written_every_period_and_at_the_end(tmp_path):
    trainer = Journal(1, iters_per_epoch=5)
    trainer.register_hooks([hooks.PeriodicWriter(lambda: [JSONWriter(tmp_path / "metrics.json")], 2)])
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert lines == [{"iteration": i, "total_loss": i - 1.0} for i in (2, 4, 5)]


def test_the_console_line_has_progress_time_left_losses_and_memory(caplog_fastreid):
    trainer = Journal(2, iters_per_epoch=3)

    class Values(HookBase):
        def after_step(self) -> None:
            for name, value in (("time", 2.0), ("data_time", 0.5), ("lr", 0.1), ("loss_cls", 3.0)):
                trainer.storage.put_scalar(name, value)

    trainer.register_hooks([Values(), hooks.PeriodicWriter(lambda: [ConsoleWriter(6, 3)], 4)])
    trainer.train()
    line = caplog_fastreid.messages[0]
    for part in ("epoch 2/2", "iter 4/6", "eta 0:00:04", "total_loss 1.5", "loss_cls 3", "lr 0.1"):
        assert part in line
    assert "time 2.000 s  data_time 0.500 s" in line
    assert "MB" in line
