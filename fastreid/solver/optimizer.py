"""Optimisers, and which learning rate and weight decay each parameter gets."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fastreid.config import CfgNode
from fastreid.utils.errors import UserError, nearest_name

NORMALISATIONS = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
HEADS = ("heads", "view_heads")
UNDECAYED = ("cls_token", "view_prompt", "pos_embed", "null_context")  # learned inputs, not weights


def _sgd(groups: list[dict], cfg: CfgNode) -> torch.optim.Optimizer:
    solver = cfg.SOLVER
    return torch.optim.SGD(groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)


def _adam(groups: list[dict], cfg: CfgNode) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=cfg.SOLVER.BASE_LR)


def _adamw(groups: list[dict], cfg: CfgNode) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=cfg.SOLVER.BASE_LR)


OPTIMIZERS: dict[str, Callable[[list[dict], CfgNode], torch.optim.Optimizer]] = {
    "SGD": _sgd,
    "Adam": _adam,
    "AdamW": _adamw,
}


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser named by SOLVER.OPT over the trainable parameters of `model`.

    Raises:
        UserError: for an unknown name, or a model without trainable parameters.
    """
    name = cfg.SOLVER.OPT
    if name not in OPTIMIZERS:
        known = list(OPTIMIZERS)
        raise UserError(
            f"SOLVER.OPT {name!r} is unknown.{nearest_name(name, known)} Known: {', '.join(known)}"
        )
    groups = parameter_groups(cfg, model)
    if not groups:
        raise UserError("the model has no trainable parameters",
"check what the config freezes")
    return OPTIMIZERS[name](groups, cfg)


def parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters, one group for each pair of learning rate and weight decay that occurs.

    The learning rate is BASE_LR, times HEADS_LR_FACTOR in `heads` and `view_heads`, times BIAS_LR_FACTOR
    for a bias. The weight decay is none for tokens and position embeddings, WEIGHT_DECAY_NORM in
    normalisation layers, WEIGHT_DECAY_BIAS for other biases, and WEIGHT_DECAY else.
    """
    solver = cfg.SOLVER
    norms = {
        id(p) for m in model.modules() if isinstance(m, NORMALISATIONS) for p in m.parameters(recurse=False)
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_bias = name.rsplit(".", 1)[-1] == "bias"
        lr = solver.BASE_LR
        if name.split(".", 1)[0] in HEADS:
            lr *= solver.HEADS_LR_FACTOR
        if is_bias:
            lr *= solver.BIAS_LR_FACTOR
        if any(token in name for token in UNDECAYED):
            decay = 0.0
        elif id(parameter) in norms:
            decay = solver.WEIGHT_DECAY_NORM
        else:
            decay = solver.WEIGHT_DECAY_BIAS if is_bias else solver.WEIGHT_DECAY
        groups.setdefault((lr, decay), []).append(parameter)
    return [{"params": members, "lr": lr, "weight_decay": decay} for (lr, decay), members in groups.items()]
