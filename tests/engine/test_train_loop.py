"""The order of hooks, and what one training step does."""

import pytest
import torch
from torch import nn
from toy_training import ToyLoader, ToyModel

from fastreid.engine import HookBase, SimpleTrainer, TrainerBase
from fastreid.engine.train_loop import step_seed
from fastreid.utils.errors import UserError

POINTS = ("before_train", "after_train", "before_epoch", "after_epoch", "before_step", "after_step")


class Recorder(HookBase):
    def __init__(self, log: list, name: str = "") -> None:
        for point in POINTS:
            setattr(self, point, lambda point=point: log.append((name + point, *self.position())))

    def position(self) -> tuple[int, int]:
        return self.trainer.epoch, self.trainer.iteration


class Counter(TrainerBase):
    def run_step(self) -> None:
        if self.iteration == getattr(self, "fail_at", None):
            raise RuntimeError("broken")


def test_hooks_see_epochs_and_iterations_that_are_done():
    log: list = []
    trainer = Counter(max_epoch=2, iters_per_epoch=2)
    trainer.register_hooks([Recorder(log)])
    trainer.train()
    step = [[("before_step", e, i), ("after_step", e, i + 1)] for e, i in ((0, 0), (0, 1), (1, 2), (1, 3))]
    assert log == [
        ("before_train", 0, 0),
        ("before_epoch", 0, 0),
        *step[0],
        *step[1],
        ("after_epoch", 1, 2),
        ("before_epoch", 1, 2),
        *step[2],
        *step[3],
        ("after_epoch", 2, 4),
        ("after_train", 2, 4),
    ]


def test_hooks_are_called_in_the_order_of_registration():
    log: list = []
    trainer = Counter(1, 1)
    trainer.register_hooks([Recorder(log, "first "), Recorder(log, "second ")])
    trainer.train()
    assert [name for name, *_ in log] == [
        f"{hook} {point}"
        for point in (
            "before_train",
            "before_epoch",
            "before_step",
            "after_step",
            "after_epoch",
            "after_train",
        )
        for hook in ("first", "second")
    ]


def test_training_goes_on_in_the_middle_of_an_epoch():
    log: list = []
    trainer = Counter(max_epoch=2, iters_per_epoch=3)
    trainer.epoch, trainer.iteration = 1, 5
    trainer.register_hooks([Recorder(log)])
    trainer.train()
    assert [entry for entry in log if "step" in entry[0]] == [("before_step", 1, 5), ("after_step", 1, 6)]


def test_after_train_is_called_when_a_step_fails():
    log: list = []
    trainer = Counter(1, 3)
    trainer.fail_at = 1
    trainer.register_hooks([Recorder(log)])
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train()
    assert log[-1] == ("after_train", 0, 1)


def make_trainer(model: nn.Module, epochs: int = 1, lr: float = 0.1, **options) -> SimpleTrainer:
    return SimpleTrainer(model, torch.optim.SGD(model.parameters(), lr), ToyLoader, epochs, 3, **options)


def test_a_step_is_plain_gradient_descent_on_the_summed_losses():
    torch.manual_seed(0)
    model, reference = nn.Linear(6, 5), nn.Linear(6, 5)
    reference.load_state_dict(model.state_dict())

    class TwoLosses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = model

        def forward(self, batch):
            logits = self.linear(batch["images"])
            return {"a": nn.functional.cross_entropy(logits, batch["targets"]), "b": logits.square().mean()}

    make_trainer(TwoLosses()).train()
    batches = iter(ToyLoader())
    for _ in range(3):
        batch = next(batches)
        logits = reference(batch["images"])
        loss = nn.functional.cross_entropy(logits, batch["targets"]) + logits.square().mean()
        for parameter, gradient in zip(
            reference.parameters(), torch.autograd.grad(loss, list(reference.parameters())), strict=True
        ):
            parameter.data -= 0.1 * gradient
    torch.testing.assert_close(model.weight, reference.weight)


def test_randomness_of_a_step_depends_on_seed_rank_and_iteration_alone():
    seeds = {step_seed(s, r, i) for s in (0, 1) for r in (0, 1) for i in range(50)}
    assert len(seeds) == 200
    finals = []
    for disturbance in (0, 7):
        torch.manual_seed(0)
        model = ToyModel()
        torch.rand(disturbance)
        make_trainer(model, epochs=2, seed=3).train()
        finals.append(model.state_dict())
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


class Diverging(ToyModel):
    def __init__(self, at: int, value: float) -> None:
        super().__init__()
        self.at, self.value, self.calls = at, value, 0

    def forward(self, batch):
        self.calls += 1
        losses = super().forward(batch)
        return {name: loss * (self.value if self.calls > self.at else 1.0) for name, loss in losses.items()}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_training_before_it_reaches_the_weights(value):
    model = Diverging(at=1, value=value)
    with pytest.raises(UserError, match=r"iteration 2: loss_cls (nan|inf).*learning rate 0.1") as error:
        make_trainer(model).train()
    assert "\n" not in str(error.value)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_float16_skips_some_overflowing_steps_before_it_gives_up():
    model = Diverging(at=1, value=float("inf"))
    trainer = make_trainer(model, epochs=5, max_skipped=4)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before: list = []

    class Watch(HookBase):
        def after_step(self) -> None:
            before.append(model.heads.weight.detach().clone())

    trainer.register_hooks([Watch()])
    with pytest.raises(UserError, match="iteration 5 after 4 skipped steps in a row"):
        trainer.train()
    assert all(torch.equal(weight, before[0]) for weight in before)
    assert trainer.grad_scaler.get_scale() == 1.0  # halved by each of the three steps that were skipped


def test_a_step_that_float16_skips_leaves_no_trace_in_running_statistics():
    class Overflowing(ToyModel):
        calls = 0

        def forward(self, batch):
            self.calls += 1
            scale = float("inf") if self.calls == 2 else 1.0
            return super().forward({**batch, "images": batch["images"] * scale})

    model = Overflowing()
    trainer = make_trainer(model, epochs=1)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    seen: list = []

    class Watch(HookBase):
        def after_step(self) -> None:
            seen.append(model.backbone[1].running_mean.clone())

    trainer.register_hooks([Watch()])
    trainer.train()
    assert torch.equal(seen[1], seen[0])
    assert not torch.equal(seen[2], seen[1])
    assert seen[-1].isfinite().all()


def test_mixed_precision_is_for_cuda_only():
    trainer = make_trainer(ToyModel(), amp_dtype=torch.float16)
    if trainer.device.type == "cpu":
        assert trainer.amp_dtype is None
        assert not trainer.grad_scaler.is_enabled()
