"""Learning rates against torch's own schedules, stepped once an epoch as fast-reid's hooks step them."""

import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR

from fastreid.config import get_cfg
from fastreid.solver import SCHEDULE_REGISTRY, build_lr_scheduler
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


def rates_by_hooks(cfg, make_schedule, iters_per_epoch: int, base: float = 1.0) -> list[float]:
    """The learning rate of each iteration of the run, from a schedule of torch's and a linear warm-up."""
    solver, optimizer = cfg.SOLVER, optimizer_with(base)
    schedule = make_schedule(optimizer)
    rates = []
    for epoch in range(1, solver.MAX_EPOCH + 1):
        for _ in range(iters_per_epoch):
            progress = min(len(rates) / solver.WARMUP_ITERS, 1.0) if solver.WARMUP_ITERS else 1.0
            factor = solver.WARMUP_FACTOR + (1 - solver.WARMUP_FACTOR) * progress
            rates.append(factor * optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) >= solver.WARMUP_ITERS and epoch > solver.DELAY_EPOCHS:
            schedule.step()
    return rates


STAGE1 = {"SCHED": "CosineAnnealingLR", "ETA_MIN_LR": 1.6e-6, "WARMUP_ITERS": 2000}
STAGE2 = {"SCHED": "LinearWarmupMultiStepDecayLRScheduler", "STEPS": [50], "GAMMA": 0.1, "WARMUP_ITERS": 1000}


@pytest.mark.parametrize(
    ("images", "batch", "epochs_of_cosine"),
    [(51_451, 128, 115), (51_530, 256, 110)],  # CARGO, AG-ReIDv2: the warm-up takes 5 and 10 of 120 epochs
)
@pytest.mark.parametrize("stage", [1, 2])
def test_the_rates_of_both_stages_are_those_of_the_hooks(stage, images, batch, epochs_of_cosine):
    per_epoch = images // batch
    cfg = cfg_with(**(STAGE1 if stage == 1 else STAGE2), MAX_EPOCH=120, WARMUP_FACTOR=0.01)
    base = 0.008 if stage == 1 else 1e-4

    def torchs(optimizer):
        if stage == 1:
            return CosineAnnealingLR(optimizer, T_max=epochs_of_cosine, eta_min=1.6e-6)
        return MultiStepLR(optimizer, milestones=[50], gamma=0.1)

    expected = rates_by_hooks(cfg, torchs, per_epoch, base)
    schedule = build_lr_scheduler(cfg, optimizer_with(base), per_epoch)
    for epoch in range(120):
        for iteration in (epoch * per_epoch, (epoch + 1) * per_epoch - 1):
            schedule.load_state_dict({"iteration": iteration})
            assert schedule.get_last_lr() == [pytest.approx(expected[iteration], rel=1e-6)], iteration
    assert schedule.get_last_lr() == [pytest.approx(1.6e-6 if stage == 1 else 1e-5)]


@pytest.mark.parametrize("warmup", [0, 1, 4, 5, 8, 23, 24, 40])
@pytest.mark.parametrize("delay", [0, 1, 3, 6])
@pytest.mark.parametrize("name", ["CosineAnnealingLR", "MultiStepLR"])
def test_an_epoch_counts_when_warm_up_and_delay_are_over(name, warmup, delay):
    times = {"MAX_EPOCH": 6, "WARMUP_ITERS": warmup, "WARMUP_FACTOR": 0.2, "DELAY_EPOCHS": delay}
    cosine = {"ETA_MIN_LR": 0.01} if name == "CosineAnnealingLR" else {"STEPS": [3, 1], "GAMMA": 0.5}
    cfg = cfg_with(SCHED=name, **times, **cosine)

    def torchs(optimizer):
        if name == "CosineAnnealingLR":
            return CosineAnnealingLR(optimizer, max(6 - max(math.ceil(warmup / 4), delay), 1), eta_min=0.01)
        return MultiStepLR(optimizer, milestones=[1, 3], gamma=0.5)

    assert rates_over(cfg, 4, 24) == pytest.approx(rates_by_hooks(cfg, torchs, 4), rel=1e-9)


def test_steps_count_epochs_from_the_end_of_the_warm_up():
    cfg = cfg_with(SCHED="MultiStepLR", STEPS=[1, 2], GAMMA=0.1, WARMUP_ITERS=3, WARMUP_FACTOR=1.0)
    assert rates_over(cfg, 2, 10) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01])


def test_a_cosine_after_a_warm_up_is_at_its_lowest_in_the_last_epoch_and_stays_there():
    cfg = cfg_with(SCHED="CosineAnnealingLR", MAX_EPOCH=4, ETA_MIN_LR=0.01, WARMUP_ITERS=1)
    rates = rates_over(cfg, 5, 30)
    assert rates[14] > 0.02
    assert rates[15:] == pytest.approx([0.01] * 15)


@pytest.mark.parametrize("name", list(SCHEDULE_REGISTRY))
def test_more_epochs_change_the_first_ones_where_a_schedule_says_so(name):
    short, long = (
        rates_over(cfg_with(SCHED=name, MAX_EPOCH=epochs, STEPS=[2], WARMUP_ITERS=3), 2, 12)
        for epochs in (6, 9)
    )
    assert (short != long) == SCHEDULE_REGISTRY.get(name).spans_run


def test_linear_warm_up_is_torchs():
    cfg = cfg_with(SCHED="MultiStepLR", STEPS=[], WARMUP_ITERS=5, WARMUP_FACTOR=0.2)
    optimizer = optimizer_with(1.0)
    oracle = LinearLR(optimizer, start_factor=0.2, total_iters=5)
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


def test_every_group_follows_its_own_base_rate_and_a_resume_its_iteration():
    cfg = cfg_with(SCHED="MultiStepLR", STEPS=[1], WARMUP_ITERS=0)
    schedule = build_lr_scheduler(cfg, optimizer_with(1.0, 0.5), 2)
    assert schedule.get_last_lr() == [1.0, 0.5]
    schedule.load_state_dict({"iteration": 2})
    assert schedule.get_last_lr() == pytest.approx([0.1, 0.05])
    assert schedule.state_dict() == {"iteration": 2}


def test_an_unknown_schedule_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"SOLVER.SCHED.*Did you mean 'CosineAnnealingLR'"):
        build_lr_scheduler(cfg_with(SCHED="CosineAnealingLR"), optimizer_with(1.0), 1)
