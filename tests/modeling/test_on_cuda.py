"""Models on a GPU: the CPU's features, and training steps with what only CUDA has."""

import copy

import pytest
import torch

from fastreid.modeling import build_model
from fastreid.solver import build_optimizer, load_optimizer_state
from fastreid.utils.env import exact_float32

pytestmark = pytest.mark.cuda


@pytest.fixture(params=["SDReIDStage1", "SDReIDStage2"])
def model(request, tiny_cfg, stage2):
    if request.param == "SDReIDStage2":
        return stage2(2, "SOLVER.OPT", "Adam")
    return build_model(tiny_cfg(2, "SOLVER.OPT", "Adam"))


def cosine(features: torch.Tensor, expected: torch.Tensor) -> float:
    return torch.cosine_similarity(features.cpu(), expected, dim=1).min().item()


@torch.no_grad()
def test_features_are_the_cpus(model, make_batch):
    batch = make_batch()
    expected = model.eval()(batch)
    model.cuda()
    model.generates_in_amp = False
    with exact_float32():
        assert cosine(model(batch), expected) > 0.99999
        with torch.autocast("cuda", torch.bfloat16):
            assert cosine(model(batch), expected) > 0.999


def test_a_fused_optimiser_trains_in_bf16_and_goes_on_unfused(model, make_batch):
    model.cuda().train()
    optimizer = build_optimizer(model.cfg, model)
    assert optimizer.param_groups[0]["fused"] is True
    cfg = copy.deepcopy(model.cfg)
    cfg.SOLVER.FUSED = False
    unfused = build_optimizer(cfg, model)
    losses = []
    for step in range(6):
        torch.manual_seed(0)
        own = optimizer if step < 3 else unfused
        if step == 3:
            load_optimizer_state(unfused, optimizer.state_dict())
        own.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = sum(model(make_batch()).values())
        loss.backward()
        own.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
