"""Frozen weights in autocast's dtype, cast once: autocast itself casts them again at every call."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Copies(NamedTuple):
    """A layer's weights in another dtype."""

    made_of: tuple
    """Identities and versions of the weights, which change when others are loaded."""
    weight: Tensor
    bias: Tensor | None


class _CastOnce(nn.Module):
    """A layer that keeps copies of its weights, as long as these are frozen, outside of its state dict.

    Without autocast, or where one of them trains, it is the layer that it was. So it is under torch.compile,
    which makes the cast a part of its kernels.
    """

    weight: Tensor
    bias: Tensor | None
    _copies: _Copies | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        device = inputs.device.type
        if torch.compiler.is_compiling() or not torch.is_autocast_enabled(device):
            return super().forward(inputs)
        own = [parameter for parameter in (self.weight, self.bias) if parameter is not None]
        if any(parameter.requires_grad for parameter in own):
            return super().forward(inputs)
        dtype = torch.get_autocast_dtype(device)
        made_of = (dtype, *((id(parameter), parameter._version) for parameter in own))
        if self._copies is None or self._copies.made_of != made_of:
            with torch.inference_mode(False), torch.no_grad():  # a backward pass may use them, too
                bias = None if self.bias is None else self.bias.to(dtype)
                self._copies = _Copies(made_of, self.weight.to(dtype), bias)
        return self._compute(inputs, self._copies.weight, self._copies.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._copies = None  # they are on the device that the weights leave
        return super()._apply(fn, recurse)

    def _compute(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError


class _Linear(_CastOnce, nn.Linear):
    def _compute(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(inputs, weight, bias)


class _Conv2d(_CastOnce, nn.Conv2d):
    def _compute(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(inputs, weight, bias)


KINDS = {nn.Linear: _Linear, nn.Conv2d: _Conv2d}


def cast_frozen_weights_once(module: nn.Module) -> None:
    """Let the linear layers and convolutions of `module` keep their frozen weights in autocast's dtype.

    Parameters, their names and the results stay what they are; the copies take the memory of half of the
    frozen weights more, from the first call under autocast on.
    """
    for layer in module.modules():
        if type(layer) in KINDS:
            layer.__class__ = KINDS[type(layer)]
