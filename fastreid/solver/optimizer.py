"""Optimisers, the learning rate and weight decay of each parameter, and gradient clipping."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from fastreid.config import NOT_NEGATIVE, CfgNode, Key
from fastreid.utils.errors import UserError
from fastreid.utils.registry import Registry, requiring

NORMS = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
Clipper = Callable[[list[nn.Parameter]], torch.Tensor]

# By torch's names in an optimiser's state.
COUNT = "step"
OF_EACH_NUMBER = ("momentum_buffer", "exp_avg", "exp_avg_sq")

OPTIMIZER_REGISTRY = Registry(
    "optimiser", "SOLVER.OPT", requiring("state_copies", see="fastreid/solver/optimizer.py")
)
"""Functions (groups of parameters, cfg) -> optimiser. `state_copies(cfg)` of one says how many numbers it
keeps for each parameter."""


SGD = {"MOMENTUM": Key(0.9, "of SGD", NOT_NEGATIVE), "NESTEROV": Key(False, "momentum of SGD")}


@OPTIMIZER_REGISTRY.register("SGD", state_copies=lambda c: int(c.SOLVER.MOMENTUM > 0), KEYS={"SOLVER": SGD})
def _sgd(groups: list[dict], cfg: CfgNode) -> torch.optim.Optimizer:
    solver = cfg.SOLVER
    momentum = {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    optimizer = torch.optim.SGD(groups, lr=solver.BASE_LR, fused=_fused(groups, cfg), **momentum)
    optimizer.register_step_pre_hook(start_fused_momenta)
    return optimizer


@OPTIMIZER_REGISTRY.register("Adam", state_copies=lambda cfg: 2)
def _adam(groups: list[dict], cfg: CfgNode) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=cfg.SOLVER.BASE_LR, fused=_fused(groups, cfg))


@OPTIMIZER_REGISTRY.register("AdamW", state_copies=lambda cfg: 2)
def _adamw(groups: list[dict], cfg: CfgNode) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=cfg.SOLVER.BASE_LR, fused=_fused(groups, cfg))


def _fused(groups: list[dict], cfg: CfgNode) -> bool | None:
    """Tell torch to update all parameters in one kernel; None: as it likes, which on the CPU is not fused."""
    return (cfg.SOLVER.FUSED and all(p.is_cuda for group in groups for p in group["params"])) or None


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore what ``optimizer.state_dict()`` gave, also of one that was fused where this is not, or reverse.

    Args:
        state: on the CPU, in whatever memory format; it is not changed and not kept, so that it may be mapped
            from a file.

    Raises:
        Exception: any that comes of a state that is not one.
    """
    _check_remembered(state["state"])  # before torch makes floats of whatever there is
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    if len(set(numbers)) != len(numbers):
        raise ValueError("the optimizer has a parameter twice")
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
    optimizer.load_state_dict({**state, "param_groups": [_group(saved, own) for saved, own in pairs]})
    for parameter, own in optimizer.state.items():
        own.update({name: _own_copy(name, value, parameter) for name, value in own.items()})


def _check_remembered(state: dict[Any, dict[str, Any]]) -> None:
    """Check that what an optimiser remembers is numbers and dense tensors of floats, the same of all."""
    names = {name for values in state.values() for name in values}
    for values in state.values():
        if lacking := names - values.keys():
            raise ValueError(f"{min(lacking)} of the optimizer is missing for a parameter")
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                found = f"a tensor {value.layout} of {value.dtype}"
                known = value.layout == torch.strided and value.is_floating_point()
            else:
                found, known = type(value).__name__, value is None or isinstance(value, int | float)
            if not known:
                raise ValueError(f"{name} of the optimizer is {found}")
            numbers = value if isinstance(value, torch.Tensor) else torch.tensor(value or 0.0)
            if numbers.numel() and torch.aminmax(numbers).min.isnan():
                raise ValueError(f"{name} of the optimizer has NaN")
            if name == COUNT and (numbers.numel() != 1 or not 0 <= numbers.item() < math.inf):
                raise ValueError(f"{name} of the optimizer is no count of steps")


def _group(saved: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return a saved group's settings, those that it lacks from ours."""
    for name, value in own.items():
        before = saved.get(name, value)
        if name != "params" and not _is_setting(before, value):
            raise ValueError(f"{name} of the optimizer is {before!r}")
    # Whether it is fused decides where torch keeps the count of steps.
    fused = {"fused": own["fused"]} if "fused" in own else {}
    return {**own, **saved, "params": saved["params"], **fused}


def _is_setting(saved: Any, own: Any) -> bool:
    """Tell whether a saved value can stand for our own of a group: of its type, and finite."""
    if isinstance(own, tuple | list):
        alike = isinstance(saved, tuple | list) and len(saved) == len(own)
        return alike and all(map(_is_setting, saved, own))
    if isinstance(own, bool) or not isinstance(own, int | float):
        return saved is None or own is None or isinstance(saved, type(own))
    return isinstance(saved, int | float) and math.isfinite(saved)


def _own_copy(name: str, value: Any, parameter: nn.Parameter) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.shape != parameter.shape:
        if value.ndim == parameter.ndim or name in OF_EACH_NUMBER:  # else it is a count, or of each row
            sizes = f"{tuple(value.shape)} for a parameter {tuple(parameter.shape)}"
            raise ValueError(f"a tensor of the optimizer is {sizes}")
        return value.clone()
    # A fused kernel pairs numbers by their places in memory, which may be channels-last here and not there.
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def start_fused_momenta(optimizer: torch.optim.SGD, *_: Any) -> None:
    """Give parameters that a fused SGD sees for the first time momenta of zero, which come to the same.

    Torch's own start uses memory as it finds it where the first step is skipped, and fails where some
    parameters of a group have been frozen so far.
    """
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"]:
            for parameter in group["params"]:
                if parameter.grad is not None and optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)


def skips_steps(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether it skips a step on the device where its ``found_inf`` is 1, as torch's fused ones do."""
    return all(group.get("fused") for group in optimizer.param_groups)


def build_optimizer(
    cfg: CfgNode, model: nn.Module, undecayed: frozenset[str] = frozenset(), heads: tuple[str, ...] = ()
) -> torch.optim.Optimizer:
    """Return the optimiser named by SOLVER.OPT over the trainable parameters of `model`.

    Args:
        undecayed, heads: as in `parameter_groups`.

    Raises:
        UserError: for an unknown name, or a model without trainable parameters.
    """
    groups = parameter_groups(cfg, model, undecayed, heads)
    if not groups:
        raise UserError("the model has no trainable parameters", "check what the config freezes")
    return cfg.entry("SOLVER.OPT")(groups, cfg)


def parameter_groups(
    cfg: CfgNode, model: nn.Module, undecayed: frozenset[str] = frozenset(), heads: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Sort the trainable parameters, one group for each pair of learning rate and weight decay that occurs.

    The learning rate is BASE_LR, times HEADS_LR_FACTOR in heads, times BIAS_LR_FACTOR for a bias. The weight
    decay is none for undecayed ones, WEIGHT_DECAY_NORM in normalisation layers, WEIGHT_DECAY_BIAS for other
    biases, and WEIGHT_DECAY else.

    Args:
        undecayed: full names of the parameters without weight decay.
        heads: prefixes of what counts as a head.
    """
    solver = cfg.SOLVER
    norms = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_bias = name.rsplit(".", 1)[-1] == "bias"
        lr = solver.BASE_LR
        if heads and name.startswith(heads):
            lr *= solver.HEADS_LR_FACTOR
        if is_bias:
            lr *= solver.BIAS_LR_FACTOR
        if name in undecayed:
            decay = 0.0
        elif id(parameter) in norms:
            decay = solver.WEIGHT_DECAY_NORM
        else:
            decay = solver.WEIGHT_DECAY_BIAS if is_bias else solver.WEIGHT_DECAY
        groups.setdefault((lr, decay), []).append(parameter)
    return [{"params": members, "lr": lr, "weight_decay": decay} for (lr, decay), members in groups.items()]


def total_norm(parameters: list[nn.Parameter]) -> torch.Tensor:
    """Euclidean norm of all gradients together, a 0-dim tensor; the gradients keep their values."""
    gradients = _gradients(parameters)
    return _norms(gradients, 2.0).norm() if gradients else torch.zeros(())


def build_gradient_clipper(cfg: CfgNode) -> Clipper:
    """A function that clips gradients in place as SOLVER.CLIP_GRADIENTS says.

    It returns the norm of all gradients before clipping (of order NORM_TYPE for CLIP_TYPE full_norm, else
    Euclidean), a 0-dim tensor, and never waits for the device.
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED:
        return total_norm
    if clip.CLIP_TYPE == "full_norm":
        return lambda parameters: clip_grad_norm_(parameters, clip.CLIP_VALUE, clip.NORM_TYPE)

    def clip_each(parameters: list[nn.Parameter]) -> torch.Tensor:
        norm = total_norm(parameters)
        if gradients := _gradients(parameters):
            if clip.CLIP_TYPE == "norm":
                factors = (clip.CLIP_VALUE / (_norms(gradients, clip.NORM_TYPE) + 1e-6)).clamp(max=1.0)
                torch._foreach_mul_(gradients, list(factors.unbind()))
            else:
                clip_grad_value_(parameters, clip.CLIP_VALUE)
        return norm

    return clip_each


def _gradients(parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _norms(gradients: list[torch.Tensor], order: float) -> torch.Tensor:
    """Return the norm of each gradient by itself, (N,)."""
    return torch.stack(torch._foreach_norm(gradients, order))
