"""Gradient clipping."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from fastreid.config import CfgNode

Clipper = Callable[[list[nn.Parameter]], torch.Tensor]


def total_norm(parameters: list[nn.Parameter]) -> torch.Tensor:
    """Euclidean norm of all gradients together, a 0-dim tensor; the gradients keep their values."""
    return clip_grad_norm_(parameters, max_norm=float("inf"))


def build_gradient_clipper(cfg: CfgNode) -> Clipper:
    """A function that clips gradients in place as SOLVER.CLIP_GRADIENTS says.

    It returns the gradients' norm before clipping (of order NORM_TYPE for CLIP_TYPE norm, else
    Euclidean), a 0-dim tensor.
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED:
        return total_norm
    if clip.CLIP_TYPE == "norm":
        return lambda parameters: clip_grad_norm_(parameters, clip.CLIP_VALUE, clip.NORM_TYPE)

    def clip_values(parameters: list[nn.Parameter]) -> torch.Tensor:
        norm = total_norm(parameters)
        clip_grad_value_(parameters, clip.CLIP_VALUE)
        return norm

    return clip_values
