"""Files that a configuration names: checked in milliseconds at the start, and inside on request."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from fastreid.config import CfgNode
from fastreid.modeling.backbones import pretrainable, require_pretrained_weights
from fastreid.modeling.weights import check_method, load_model_weights, named_method
from fastreid.utils.checkpoint import load_checkpoint
from fastreid.utils.errors import UserError


class Asset(NamedTuple):
    """A file or folder that a configuration names."""

    name: str
    check: Callable[[], str]
    """Says what it found, without looking at tensors, or raises a UserError."""
    check_contents: Callable[[nn.Module], str] | None = None
    """The same for the tensors inside, given the model on the ``meta`` device; None: there are none."""


def required_weights(method: Any, cfg: CfgNode, training: bool) -> str:
    """Return MODEL.WEIGHTS; empty only where training may start afresh.

    Args:
        method: the class of the method.

    Raises:
        UserError: if it is empty elsewhere.
    """
    if cfg.MODEL.WEIGHTS or (training and not method.starts_from):
        return cfg.MODEL.WEIGHTS
    if training:
        raise UserError(
            f"MODEL.WEIGHTS is empty: {method.__name__} trains from a checkpoint of {_either(method)}",
            "name its model_best.pth",
        )
    raise UserError("MODEL.WEIGHTS is empty", "name a checkpoint, such as OUTPUT_DIR's model_best.pth")


def starting_weights(method: Any, cfg: CfgNode, training: bool) -> Asset:
    """Return the checkpoint of MODEL.WEIGHTS, which a training starts from or an evaluation scores."""

    def check() -> str:
        path = required_weights(method, cfg, training)
        if not Path(path).is_file():
            train_first = f"train {_either(method)} first, or name its checkpoint"
            advice = train_first if training and method.starts_from else "check the path"
            raise UserError(f"MODEL.WEIGHTS: {path} not found", advice)
        return path

    def check_contents(model: nn.Module) -> str:
        path, purpose = cfg.MODEL.WEIGHTS, "train" if training else "eval"
        checkpoint = load_checkpoint(path)
        check_method(checkpoint["meta"], model, purpose, path)
        allow_partial = cfg.MODEL.ALLOW_PARTIAL_WEIGHTS
        state = checkpoint["model"]
        report = load_model_weights(model, state, purpose, allow_partial, path, dry_run=True)
        written_by = named_method(checkpoint["meta"])
        parts = [f"of {written_by}"] if written_by else []
        return "; ".join([*parts, report.summary()])

    return Asset("weights", check, check_contents)


def pretrained_backbone(cfg: CfgNode) -> Asset:
    """Return the pretrained file of the backbone."""
    settings = cfg.MODEL.BACKBONE
    return Asset(
        "pretrained backbone",
        lambda: str(require_pretrained_weights(settings.PRETRAIN_PATH, settings.FEAT_DIM)),
        lambda model: pretrainable(model.backbone, settings.NAME).check_pretrained(settings.PRETRAIN_PATH),
    )


def _either(method: Any) -> str:
    return " or ".join(method.starts_from)
