"""Memory: exact where it is counted, near where it is estimated."""

from itertools import accumulate

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from fastreid.checks import memory
from fastreid.checks.memory import check_memory, free_main_memory, training_memory
from fastreid.modeling import build_meta_model, build_model
from fastreid.solver import build_optimizer

FACTOR = 1.5  # within which the estimate is of what a step really takes


@pytest.fixture
def sized(cfg):
    """A configuration whose activations are large beside everything else of the process."""
    cfg.MODEL.HEADS.NUM_CLASSES = 6
    cfg.MODEL.SDMODEL.VIEW_NUM = 2
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [64, 64]
    cfg.MODEL.BACKBONE.PATCH_SIZE = 8
    cfg.MODEL.BACKBONE.STRIDE_SIZE = [8, 8]
    cfg.SOLVER.IMS_PER_BATCH = 256
    return cfg


def batch_of(cfg) -> dict:
    count = cfg.SOLVER.IMS_PER_BATCH
    return {
        "images": torch.randint(0, 256, (count, 3, *cfg.INPUT.SIZE_TRAIN), dtype=torch.uint8),
        "targets": torch.arange(count) % 6,
        "viewids": torch.arange(count) % 2,
        "img_paths": [""] * count,
    }


def size(tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("stage", [1, 2])
def test_parameters_are_counted_exactly(sized, stage):
    sized.use_method(f"SDReIDStage{stage}")
    real = build_model(sized)
    needed = training_memory(sized, build_meta_model(sized))
    assert needed.model == size([*real.parameters(), *real.buffers()])
    assert needed.gradients == size(p for p in real.parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "momentum"), [("SGD", 0.9), ("SGD", 0.0), ("Adam", 0.9), ("AdamW", 0.9)])
def test_the_optimizer_holds_what_is_said(sized, name, momentum):
    sized.SOLVER.OPT = name
    sized.SOLVER.MOMENTUM = momentum
    real = build_model(sized)
    optimizer = build_optimizer(sized, real)
    for parameter in real.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    states = [v for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
    said = training_memory(sized, build_meta_model(sized)).optimizer
    assert said == size(state for state in states if state.ndim)  # without the step counts


def peak_of(step) -> int:
    """The most bytes that torch held at once while `step` ran, beyond those before, by its own record."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events))


@pytest.mark.parametrize(("stage", "target"), [(1, "same_image"), (2, "same_image"), (2, "cross_view")])
def test_the_estimate_is_near_what_a_step_takes(sized, stage, target):
    sized.use_method(f"SDReIDStage{stage}")
    sized.MODEL.SDMODEL.TARGET = target
    model = build_model(sized).train()
    batch = batch_of(sized)
    taken = peak_of(lambda: sum(model(batch).values()).backward())  # gradients and activations
    needed = training_memory(sized, build_meta_model(sized))
    assert taken / FACTOR < needed.gradients + needed.activations < taken * FACTOR


@pytest.mark.parametrize("setting", ["COMPILE", "GRADIENT_CHECKPOINTING"])
def test_settings_of_the_unet_do_not_stop_the_estimate(sized, setting):
    sized.use_method("SDReIDStage2")
    plain = training_memory(sized, build_meta_model(sized))
    sized.MODEL.SDMODEL[setting] = True
    needed = training_memory(sized, build_meta_model(sized))
    assert needed[:3] == plain[:3]
    assert 0 < needed.activations <= plain.activations


def test_activations_grow_with_the_batch_and_shrink_with_the_processes(sized):
    whole = training_memory(sized, build_meta_model(sized))
    shared = training_memory(sized, build_meta_model(sized), world_size=2)
    sized.SOLVER.IMS_PER_BATCH = 128
    assert training_memory(sized, build_meta_model(sized)) == shared
    assert 1.9 < whole.activations / shared.activations < 2.1
    assert whole[:3] == shared[:3]


def test_mixed_precision_takes_less_on_a_gpu(sized, monkeypatch):
    plain = training_memory(sized, build_meta_model(sized)).activations
    monkeypatch.setattr(memory, "resolve_device", lambda name: torch.device("cuda"))
    assert 0.4 * plain < training_memory(sized, build_meta_model(sized)).activations < 0.8 * plain


@pytest.mark.parametrize(
    ("processes", "available", "level"),
    [(1, 1.3, "ok"), (1, 1.05, "warning"), (2, 1.3, "ok"), (2, 1.05, "warning")],
)
def test_memory_that_does_not_suffice(sized, said, monkeypatch, processes, available, level):
    needed = training_memory(sized, build_meta_model(sized)).total  # two processes take half of it each
    monkeypatch.setattr(memory, "free_main_memory", lambda: int(available * needed))
    findings = check_memory(sized, build_meta_model(sized), processes=processes)
    text = said(findings, level, "memory")
    assert ("lower SOLVER.IMS_PER_BATCH" in text) is (level == "warning")
    total = sum(p.numel() for p in build_model(sized).parameters())
    assert said(findings, "ok", "parameters").startswith(f"{total:,}, of which")


def test_evaluation_is_told_its_parameters_alone(sized):
    checks = [finding.check for finding in check_memory(sized, build_meta_model(sized), training=False)]
    assert checks == ["parameters"]


@pytest.mark.parametrize(("limit", "expected"), [("max", 2048), ("1000", 1000), ("9999", 2048), (None, 2048)])
def test_main_memory_is_the_containers_where_it_has_less(tmp_path, limit, expected):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   2 kB\n")
    if limit is not None:
        (tmp_path / "max").write_text(limit + "\n")
    assert free_main_memory(tmp_path / "meminfo", tmp_path / "max") == expected
