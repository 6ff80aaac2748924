"""A checkpoint's weights in a model: nothing is silently missing, and no other method's are taken."""

import logging
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from tabulate import tabulate
from torch import nn

from fastreid.utils.checkpoint import without_module_prefix
from fastreid.utils.errors import UserError
from fastreid.utils.weight_files import check_finite, misfit

logger = logging.getLogger(__name__)

EARLIER_STAGES: dict[int, str] = {}
"""The methods of checkpoints from before they named theirs, by their ``stage``. A method adds its own."""

Purpose = Literal["train", "eval", "resume"]


@dataclass
class LoadReport:
    """Names of parameters and buffers, by what became of them."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return a row for each kind."""
        rows = [
            (kind, len(names), _some(names))
            for kind, names in vars(self).items()
            if names or kind in ("loaded", "missing")
        ]
        return tabulate(rows, headers=("parameters", "number", "names"), tablefmt="simple")

    def summary(self) -> str:
        """Return one line."""
        parts = [f"{len(self.loaded)} of {len(self.loaded) + len(self.missing)} parameters fit"]
        for meaning, names in (
            ("from random values", self.missing),
            ("of another shape or type, left out", self.mismatched),
            ("not of this model, left out", self.unexpected),
        ):
            if names:
                parts.append(f"{meaning}: {len(names)}, such as {names[0]}")
        return "; ".join(parts)


def load_model_weights(
    model: nn.Module,
    state_dict: dict[str, torch.Tensor],
    purpose: Purpose,
    allow_partial: bool = False,
    source: str = "checkpoint",
    dry_run: bool = False,
) -> LoadReport:
    """Copy `state_dict` into `model` and report what fitted.

    What may lack or have another shape depends on the purpose and on the model's `parameter_rules`: ``train``
    may lack `may_start_without` and `training_only` (classifiers), ``eval`` the latter, ``resume`` nothing.
    Classifiers of another number of identities are left out with a message.

    Args:
        allow_partial: go on in spite of missing or mismatched parameters (not for ``resume``).
        source: the file, for messages.
        dry_run: load nothing; the model may be on the ``meta`` device.

    Raises:
        UserError: if a parameter that the purpose depends on is missing or has another shape, or one has a
            number that is not finite; the model is unchanged then.
    """
    given = without_module_prefix(state_dict)
    own, rules = model.state_dict(), model.parameter_rules()
    report = _compare(own, given)
    if not report.loaded:
        raise UserError(
            f"{source} has no parameter in common with this model", "give one of this architecture"
        )
    classifiers = () if purpose == "resume" else rules.training_only
    optional = classifiers + (rules.may_start_without if purpose == "train" else ())
    missing = [n for n in report.missing if not (n.startswith(optional) or n.endswith("num_batches_tracked"))]
    mismatched = [name for name in report.mismatched if not name.startswith(classifiers)]
    if missing or mismatched:
        shapes = [f"{n} {misfit(given[n], own[n])}" for n in mismatched]
        _refuse_or_warn(purpose, allow_partial, source, missing, shapes, len(own))
    fitting = {name: given[name] for name in report.loaded}
    check_finite(fitting, source)
    if dry_run:
        return report
    model.load_state_dict(fitting, strict=False)
    logger.info("Weights from %s\n%s", source, report.table())
    for name in report.mismatched:
        if name.startswith(rules.training_only):
            sizes = tuple(given[name].shape), tuple(own[name].shape)
            logger.info("%s: not loaded, trained for another number of identities %s, here %s", name, *sizes)
    return report


def named_method(meta: dict[str, Any]) -> str | None:
    """Return the method that wrote a checkpoint with this ``meta``; None where it does not say."""
    return meta.get("method") or EARLIER_STAGES.get(meta.get("stage"))


def check_method(meta: dict[str, Any], model: nn.Module, purpose: Purpose, source: str) -> None:
    """Explain a checkpoint of another method. Files that do not name theirs pass.

    Raises:
        UserError: if a file of one method is evaluated or resumed as another, or a training is to start from
            a method that it does not start from.
    """
    found, wanted = named_method(meta), type(model).__name__
    if found in (None, wanted) or (purpose == "train" and found in model.starts_from):
        return
    doing = {"train": "trains", "eval": "evaluates", "resume": "resumes"}[purpose]
    raise UserError(
        f"{source} is a checkpoint of {found}, but the config {doing} {wanted}",
        f"use the config of {found}, or name a checkpoint of {wanted} in MODEL.WEIGHTS",
    )


def _compare(own: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> LoadReport:
    report = LoadReport(unexpected=[name for name in given if name not in own])
    for name, value in own.items():
        if name not in given:
            report.missing.append(name)
        elif misfit(given[name], value):
            report.mismatched.append(name)
        else:
            report.loaded.append(name)
    return report


def _refuse_or_warn(
    purpose: Purpose, allow_partial: bool, source: str, missing: list[str], shapes: list[str], total: int
) -> None:
    parts = []
    if missing:
        parts.append(f"lacks {len(missing)} of {total} parameters ({_some(missing)})")
    if shapes:
        parts.append(f"has {len(shapes)} parameters of another shape or type ({_some(shapes)})")
    problem = f"{source} {' and '.join(parts)}"
    if purpose == "resume":
        raise UserError(
            f"{problem}: this is not the run to resume", "restore config and data, or start afresh"
        )
    if not allow_partial:
        raise UserError(
            problem,
            "give a checkpoint of this architecture, input size and number of views, or set"
            " MODEL.ALLOW_PARTIAL_WEIGHTS True to go on with what fits",
        )
    logger.warning("%s: going on with random values for them (MODEL.ALLOW_PARTIAL_WEIGHTS)", problem)


def _some(names: list[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (f", … ({len(names) - shown} more)" if len(names) > shown else "")
