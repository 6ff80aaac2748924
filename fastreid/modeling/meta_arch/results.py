"""Checks of what a method gives and is given; a mistake is told in a line, not by what it breaks later."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastreid.utils.errors import UserError
from fastreid.utils.logger import warn_once


def check_encoded(method: str, encoded: Any) -> None:
    """Check what `encode` gave: UserError unless it is a tuple that begins with a tensor (B, D)."""
    if not (
        isinstance(encoded, tuple) and encoded and isinstance(encoded[0], Tensor) and encoded[0].ndim == 2
    ):
        raise UserError(f"encode of {method} gives {_shown(encoded)}", "return a NamedTuple, first a (B, D)")


def check_losses(method: str, losses: Any) -> None:
    """Check what `losses` gave: UserError unless it is scalars by name, of which one has a gradient."""
    if not (isinstance(losses, dict) and losses):
        raise UserError(f"losses of {method} gives {_shown(losses)}", "return scalars by name, at least one")
    for name, loss in losses.items():
        if not (str(name).startswith("loss_") and isinstance(loss, Tensor) and loss.ndim == 0):
            raise UserError(
                f"losses of {method} gives {name!r}: {_shown(loss)}",
                "return scalar tensors whose names begin with loss_",
            )
    if torch.is_grad_enabled() and not any(loss.requires_grad for loss in losses.values()):
        raise UserError(f"no loss of {method} depends on what it trains", "let one have a gradient")


def check_features(method: str, features: Any, parts: dict[str, int]) -> None:
    """Check what `features` gave: UserError unless it is (B, D), D the sum of the chosen `parts`."""
    if not (isinstance(features, Tensor) and features.ndim == 2 and features.shape[1] == sum(parts.values())):
        said = ", ".join(f"{name} {width}" for name, width in parts.items())
        raise UserError(
            f"features of {method} gives {_shown(features)}, but its feature_parts are {said}",
            f"make them agree: (B, {sum(parts.values())})",
        )


def check_view_names(method: str, trained: Sequence[str], views: Sequence[str], source: str) -> None:
    """Check that every view of `source` that training had has the same number as in training.

    A view that training had not is told in a warning, with the training view whose number it has.
    """
    numbers = {name: number for number, name in enumerate(trained)}
    if any(numbers.get(name, number) != number for number, name in enumerate(views)):
        raise UserError(
            f"{method} was trained on the views {', '.join(trained)} and reads them, but {source} has"
            f" {', '.join(views)}, numbered otherwise",
            "name the views as in training",
        )
    known = [f"the number of {name}" for name in trained]
    strangers = [
        f"{name} has {known[number] if number < len(known) else 'a number past the last'}"
        for number, name in enumerate(views)
        if trained and name not in numbers
    ]
    if strangers:
        warn_once(
            __name__, f"{method} reads views, and {source} has others than training: {', '.join(strangers)}"
        )


def _shown(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
