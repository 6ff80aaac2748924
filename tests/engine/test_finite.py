"""A training that diverges, with an optimiser that skips steps itself: noticed late, and always in time."""

import pytest
import torch
from toy_training import ToyLoader, ToyModel

from fastreid.engine import HookBase, SimpleTrainer
from fastreid.engine.finite import LOOK_PERIOD
from fastreid.utils.errors import UserError

FUSED = [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW]


class Spoiled(ToyModel):
    """One step, counted from 1, has a loss that is not finite."""

    def __init__(self, step: int, value: float = float("nan")) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.step, self.value, self.calls = step, value, 0

    def losses(self, encoded, batch):
        self.calls += 1
        factor = self.value if self.calls == self.step else 1.0
        return {name: loss * factor for name, loss in super().losses(encoded, batch).items()}


class Watch(HookBase):
    """Notes the classifier's weights and the running mean after every step, and acts after one."""

    def __init__(self, step: int = 0, act=None) -> None:
        self.step, self.act, self.weights, self.means = step, act, [], []

    def after_step(self) -> None:
        model = self.trainer.model
        self.weights.append(model.heads.weight.detach().clone())
        self.means.append(model.backbone[1].running_mean.clone())
        if self.trainer.iteration == self.step:
            self.act(self.trainer)


def fused_trainer(model, steps: int, watch: Watch, kind=torch.optim.AdamW, **options) -> SimpleTrainer:
    optimizer = kind(model.parameters(), 0.1, fused=True)
    trainer = SimpleTrainer(model, optimizer, ToyLoader, 1, steps, **options)
    trainer.register_hooks([watch])
    return trainer


@pytest.mark.parametrize("kind", FUSED)
def test_the_model_stays_as_it_was_until_the_end_of_the_epoch_tells(kind):
    watch = Watch()
    with pytest.raises(UserError, match=r"iteration 3: loss_cls nan, gradient norm nan, learning rate 0.1"):
        fused_trainer(Spoiled(3), LOOK_PERIOD - 1, watch, kind).train()
    assert len(watch.weights) == LOOK_PERIOD - 1
    assert not torch.equal(watch.weights[0], watch.weights[1])
    assert all(torch.equal(weights, watch.weights[1]) for weights in watch.weights[2:])


def test_the_host_looks_every_so_many_steps():
    watch = Watch()
    with pytest.raises(UserError, match="iteration 3:"):
        fused_trainer(Spoiled(3), 3 * LOOK_PERIOD, watch).train()
    assert len(watch.weights) == LOOK_PERIOD - 1  # the step at which it looked is not done


def test_the_host_looks_before_scalars_are_written():
    watch = Watch(4, lambda trainer: trainer.write_scalars({"total_loss": 1.0}))
    trainer = fused_trainer(Spoiled(3), 9, watch)
    trainer.writers = [None]  # nobody to be asked
    with pytest.raises(UserError, match="iteration 3:"):
        trainer.train()
    assert len(watch.weights) == 4


def test_the_host_looks_before_a_checkpoint_is_made(toy_trainer, toy_cfg):
    trainer = toy_trainer(toy_cfg)
    trainer.optimizer.param_groups[0]["fused"] = True  # as on CUDA
    nan = torch.tensor(float("nan"))
    trainer.finite_check.judge(1, nan, nan, {"loss_cls": nan}, most=1)
    for _ in range(2):  # also a second time
        with pytest.raises(UserError, match="iteration 1:"):
            trainer.save_checkpoint("model_latest.pth")
    assert trainer.checkpointer.load_last() is None


def scaled(model, steps: int, **options) -> tuple[Watch, SimpleTrainer]:
    """Train as with float16, and return what was seen."""
    watch = Watch()
    trainer = fused_trainer(model, steps, watch, **options)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer.train()
    return watch, trainer


@pytest.mark.parametrize("kind", FUSED)
def test_a_step_that_loss_scaling_skips_leaves_no_trace(kind):
    watch, trainer = scaled(Spoiled(2, float("inf")), 4, kind=kind)
    for values in (watch.weights, watch.means):
        assert torch.equal(values[0], values[1])
        assert not torch.equal(values[1], values[2])
    assert trainer.finite_check.skipped == 0
    assert trainer.grad_scaler.get_scale() == 4.0


def test_loss_scaling_gives_up_at_the_step_that_is_one_too_many():
    model = Spoiled(0)
    model.losses = lambda encoded, batch: {"loss_cls": model.heads(encoded.features).sum() * float("inf")}
    with pytest.raises(UserError, match="iteration 4 after 4 skipped steps in a row: loss_cls"):
        scaled(model, 9, max_skipped=4)
