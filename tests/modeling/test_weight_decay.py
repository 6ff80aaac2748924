"""The weight decay of each parameter of SD-ReID's stages, and of what a module takes out of it."""

from collections import Counter

import pytest
import torch
from torch import nn

from fastreid.modeling import build_model
from fastreid.solver import build_optimizer

STAGE2 = ("MODEL.META_ARCHITECTURE", "SDReIDStage2")


def decays(cfg, model) -> dict[str, float]:
    """The weight decay of each trainable parameter by its name; each is in one group."""
    rules = model.parameter_rules()
    groups = build_optimizer(cfg, model, rules.undecayed, rules.heads).param_groups
    grouped = Counter(id(parameter) for group in groups for parameter in group["params"])
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert grouped == Counter(map(id, trainable.values()))
    of = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    return {name: of[id(parameter)] for name, parameter in trainable.items()}


@pytest.mark.parametrize(
    ("options", "weights", "learned"),
    [
        ((), 1e-4, ["backbone.cls_token", "backbone.pos_embed", "backbone.view_prompt"]),
        (STAGE2, 5e-4, ["generator.condition_learner.null_context"]),
    ],
)
def test_norms_and_biases_have_their_own_and_all_else_that_of_weights(tiny_cfg, options, weights, learned):
    cfg = tiny_cfg(2, *options, "SOLVER.WEIGHT_DECAY", str(weights))
    model = build_model(cfg)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    found = decays(cfg, model)
    for name, decay in found.items():
        module, _, leaf = name.rpartition(".")
        assert decay == (5e-4 if leaf == "bias" or "Norm" in kinds[module] else weights), name
    assert set(learned) <= found.keys()


def test_what_a_module_names_is_not_decayed(tiny_cfg):
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.weight = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))

        def no_weight_decay(self) -> set[str]:
            return {"token"}

    cfg = tiny_cfg(2)
    model = build_model(cfg)
    model.backbone.extra = Tokens()
    assert model.parameter_rules().undecayed == {"backbone.extra.token"}
    found = decays(cfg, model)
    assert (found["backbone.extra.token"], found["backbone.extra.weight"]) == (0.0, 5e-4)
    assert list(found.values()).count(0.0) == 1
