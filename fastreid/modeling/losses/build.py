"""The losses that ``MODEL.LOSSES`` asks for."""

import torch

from fastreid.config import CfgNode
from fastreid.modeling.losses.cross_entropy import cross_entropy
from fastreid.modeling.losses.pairwise import circle, cosface
from fastreid.modeling.losses.triplet import triplet
from fastreid.utils.errors import UserError, nearest_name

LOSS_NAMES = ("CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface")


def check_loss_names(cfg: CfgNode) -> None:
    """Check ``MODEL.LOSSES.NAME``.

    Raises:
        UserError: if it is empty or names a loss that does not exist.
    """
    known = f"Known: {', '.join(LOSS_NAMES)}"
    if not cfg.MODEL.LOSSES.NAME:
        raise UserError(f"MODEL.LOSSES.NAME is empty: nothing to train on. {known}")
    for name in cfg.MODEL.LOSSES.NAME:
        if name not in LOSS_NAMES:
            nearest = nearest_name(str(name), list(LOSS_NAMES))
            raise UserError(f"unknown loss {name!r} in MODEL.LOSSES.NAME.{nearest} {known}")


def classification_loss(cfg: CfgNode, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (B, C) logits and int64 targets (B,) as ``MODEL.LOSSES.CE`` sets it; a scalar."""
    options = cfg.MODEL.LOSSES.CE
    return options.SCALE * cross_entropy(logits, targets, options.EPSILON, options.ALPHA)


def metric_losses(cfg: CfgNode, features: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """The metric losses among ``MODEL.LOSSES.NAME``, times their ``SCALE``.

    Under distributed training each rank sees the pairs of its own part of the batch only; the samplers
    put whole identities on a rank.

    Args:
        features: (B, E).
        targets: int64 (B,).

    Returns:
        Scalars under ``loss_triplet``, ``loss_circle``, ``loss_cosface``.

    Raises:
        UserError: for an unknown name.
    """
    check_loss_names(cfg)
    options = cfg.MODEL.LOSSES
    losses = {}
    if "TripletLoss" in options.NAME:
        losses["loss_triplet"] = options.TRI.SCALE * triplet(
            features, targets, options.TRI.MARGIN, options.TRI.NORM_FEAT, options.TRI.HARD_MINING
        )
    if "CircleLoss" in options.NAME:
        losses["loss_circle"] = options.CIRCLE.SCALE * circle(
            features, targets, options.CIRCLE.MARGIN, options.CIRCLE.GAMMA
        )
    if "Cosface" in options.NAME:
        losses["loss_cosface"] = options.COSFACE.SCALE * cosface(
            features, targets, options.COSFACE.MARGIN, options.COSFACE.GAMMA
        )
    return losses
