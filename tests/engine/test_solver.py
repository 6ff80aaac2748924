"""Learning rates against closed forms and torch's own schedules; which parameter gets which rule."""

import math

import pytest
import torch
from torch import nn

from fastreid.config import get_cfg
from fastreid.solver import build_gradient_clipper, build_lr_scheduler, build_optimizer, total_norm
from fastreid.utils.errors import UserError


def cfg_with(**solver):
    cfg = get_cfg()
    cfg.merge_values({"SOLVER": solver}, source="test")
    return cfg


def optimizer_with(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def rates_over(cfg, iters_per_epoch: int, iterations: int, base: float = 1.0) -> list[float]:
    """The learning rate that each iteration uses."""
    schedule = build_lr_scheduler(cfg, optimizer_with(base), iters_per_epoch)
    rates = []
    for _ in range(iterations):
        rates += schedule.get_last_lr()
        schedule.optimizer.step()
        schedule.step()
    return rates


def test_cosine_is_torchs_and_ends_at_the_lowest_rate_in_the_last_iteration():
    cfg = cfg_with(SCHED="CosineAnnealingLR", MAX_EPOCH=4, ETA_MIN_LR=0.01, WARMUP_ITERS=0)
    rates = rates_over(cfg, iters_per_epoch=5, iterations=20)
    optimizer = optimizer_with(1.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=19, eta_min=0.01)
    expected = []
    for _ in range(20):
        expected += oracle.get_last_lr()
        optimizer.step()
        oracle.step()
    assert rates == pytest.approx(expected)
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(0.01)


def test_cosine_waits_for_the_delay():
    cfg = cfg_with(SCHED="CosineAnnealingLR", MAX_EPOCH=3, DELAY_EPOCHS=1, ETA_MIN_LR=0.0, WARMUP_ITERS=0)
    rates = rates_over(cfg, iters_per_epoch=4, iterations=12)
    assert rates[:5] == [1.0] * 5
    assert rates[4:] == pytest.approx([(1 + math.cos(math.pi * k / 7)) / 2 for k in range(8)], abs=1e-12)


def test_multi_step_falls_at_the_first_iteration_of_each_named_epoch():
    cfg = cfg_with(SCHED="MultiStepLR", STEPS=[3, 1], GAMMA=0.1, WARMUP_ITERS=0)
    assert rates_over(cfg, 2, 8) == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_linear_warm_up_is_torchs():
    cfg = cfg_with(SCHED="MultiStepLR", STEPS=[], WARMUP_ITERS=5, WARMUP_FACTOR=0.2)
    optimizer = optimizer_with(1.0)
    oracle = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.2, total_iters=5)
    expected = []
    for _ in range(8):
        expected += oracle.get_last_lr()
        optimizer.step()
        oracle.step()
    assert rates_over(cfg, 2, 8) == pytest.approx(expected)


def test_constant_warm_up_and_the_schedule_that_is_always_linear():
    solver = {"STEPS": [], "WARMUP_ITERS": 2, "WARMUP_FACTOR": 0.5, "WARMUP_METHOD": "constant"}
    assert rates_over(cfg_with(SCHED="MultiStepLR", **solver), 2, 3) == [0.5, 0.5, 1.0]
    always_linear = cfg_with(SCHED="LinearWarmupMultiStepDecayLRScheduler", **solver)
    assert rates_over(always_linear, 2, 3) == [0.5, 0.75, 1.0]


def test_the_cosine_begins_when_the_warm_up_ends():
    solver = {"SCHED": "CosineAnnealingLR", "ETA_MIN_LR": 0.0}
    warmed = rates_over(cfg_with(MAX_EPOCH=3, WARMUP_ITERS=5, WARMUP_FACTOR=0.0, **solver), 5, 15)
    after = rates_over(cfg_with(MAX_EPOCH=2, WARMUP_ITERS=0, **solver), 5, 10)
    assert warmed == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, *after])


def test_warm_up_multiplies_the_schedule():
    solver = {"SCHED": "MultiStepLR", "STEPS": [1]}
    plain = rates_over(cfg_with(WARMUP_ITERS=0, **solver), 5, 10)
    warmed = rates_over(cfg_with(WARMUP_ITERS=8, WARMUP_FACTOR=0.0, **solver), 5, 10)
    assert warmed == pytest.approx([r * min(1, t / 8) for t, r in enumerate(plain)])


def test_every_group_follows_its_own_base_rate_and_a_resume_its_iteration():
    cfg = cfg_with(SCHED="MultiStepLR", STEPS=[1], WARMUP_ITERS=0)
    schedule = build_lr_scheduler(cfg, optimizer_with(1.0, 0.5), 2)
    assert schedule.get_last_lr() == [1.0, 0.5]
    schedule.load_state_dict({"iteration": 2})
    assert schedule.get_last_lr() == pytest.approx([0.1, 0.05])
    assert schedule.state_dict() == {"iteration": 2}


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"SOLVER.SCHED.*Did you mean 'CosineAnnealingLR'"):
        build_lr_scheduler(cfg_with(SCHED="CosineAnealingLR"), optimizer_with(1.0), 1)
    with pytest.raises(UserError, match=r"SOLVER.OPT.*Did you mean 'AdamW'"):
        build_optimizer(cfg_with(OPT="AdmW"), nn.Linear(1, 1))


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
        self.backbone.cls_token = nn.Parameter(torch.zeros(1))
        self.backbone.pos_embed = nn.Parameter(torch.zeros(1))
        self.heads = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
        self.heads[0].bias.requires_grad_(False)
        self.headstone = nn.Linear(2, 2)


def test_each_parameter_gets_the_rate_and_decay_of_its_kind():
    rules = {"BASE_LR": 1.0, "HEADS_LR_FACTOR": 10.0, "BIAS_LR_FACTOR": 2.0}
    cfg = cfg_with(**rules, WEIGHT_DECAY=0.1, WEIGHT_DECAY_BIAS=0.2, WEIGHT_DECAY_NORM=0.3)
    model = Parts()
    undecayed = frozenset({"backbone.cls_token", "backbone.pos_embed"})
    optimizer = build_optimizer(cfg, model, undecayed, heads=("heads.",))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        "backbone.0.weight": (1.0, 0.1),
        "backbone.0.bias": (2.0, 0.2),
        "backbone.1.weight": (1.0, 0.3),
        "backbone.1.bias": (2.0, 0.3),
        "backbone.2.weight": (1.0, 0.1),
        "backbone.2.bias": (2.0, 0.2),
        "backbone.cls_token": (1.0, 0.0),
        "backbone.pos_embed": (1.0, 0.0),
        "heads.0.weight": (10.0, 0.3),
        "heads.1.weight": (10.0, 0.1),
        "heads.1.bias": (20.0, 0.2),
        "headstone.weight": (1.0, 0.1),
        "headstone.bias": (2.0, 0.2),
    }
    assert len(optimizer.param_groups) == len(set(found.values()))


@pytest.mark.parametrize(("name", "kind"), [("SGD", "SGD"), ("Adam", "Adam"), ("AdamW", "AdamW")])
def test_optimisers_by_name(name, kind):
    assert type(build_optimizer(cfg_with(OPT=name), nn.Linear(1, 1))).__name__ == kind


def test_a_fully_frozen_model_is_refused():
    with pytest.raises(UserError, match="no trainable parameters"):
        build_optimizer(get_cfg(), nn.Linear(1, 1).requires_grad_(False))


def clipped(**clip) -> tuple[float, torch.Tensor]:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([-4.0])
    norm = build_gradient_clipper(cfg_with(CLIP_GRADIENTS=clip))(parameters)
    return float(norm), torch.cat([parameter.grad for parameter in parameters])


def test_gradients_are_clipped_by_their_common_norm_or_one_by_one():
    norm, gradient = clipped(CLIP_TYPE="norm", CLIP_VALUE=1.0)
    assert norm == pytest.approx(5.0)
    torch.testing.assert_close(gradient, torch.tensor([0.6, 0.0, -0.8]))
    norm, gradient = clipped(CLIP_TYPE="value", CLIP_VALUE=3.5)
    assert norm == pytest.approx(5.0)
    torch.testing.assert_close(gradient, torch.tensor([3.0, 0.0, -3.5]))
    norm, gradient = clipped(ENABLED=False)
    assert norm == pytest.approx(5.0)
    assert gradient.tolist() == [3.0, 0.0, -4.0]
    assert float(total_norm([nn.Parameter(torch.zeros(1))])) == 0.0
