"""The head registry."""

from torch import nn

from fastreid.config import CfgNode
from fastreid.utils.registry import Registry

REID_HEADS_REGISTRY = Registry("head", "MODEL.HEADS.NAME")


def build_head(cfg: CfgNode, feat_dim: int, num_classes: int) -> nn.Module:
    """The head named by ``MODEL.HEADS.NAME`` on features of `feat_dim` dimensions, on the CPU."""
    return REID_HEADS_REGISTRY.get(cfg.MODEL.HEADS.NAME)(cfg, feat_dim, num_classes)
