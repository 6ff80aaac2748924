"""Losses: plain functions of tensors, and the two that read ``MODEL.LOSSES``."""

from fastreid.modeling.losses.build import check_loss_names, classification_loss, metric_losses
from fastreid.modeling.losses.cross_entropy import cross_entropy
from fastreid.modeling.losses.pairwise import circle, cosface, feature_spread
from fastreid.modeling.losses.triplet import triplet

__all__ = [
    "check_loss_names",
    "circle",
    "classification_loss",
    "cosface",
    "cross_entropy",
    "feature_spread",
    "metric_losses",
    "triplet",
]
