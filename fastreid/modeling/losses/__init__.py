"""Losses: plain functions of tensors, and as registered things what ``MODEL.LOSSES.NAME`` names."""

from fastreid.modeling.losses.build import LOSS_REGISTRY, IdentityLosses, accuracy
from fastreid.modeling.losses.circle import CircleLoss, Cosface, circle, cosface
from fastreid.modeling.losses.cross_entropy import CrossEntropyLoss, cross_entropy
from fastreid.modeling.losses.pairwise import feature_spread
from fastreid.modeling.losses.triplet import TripletLoss, triplet
