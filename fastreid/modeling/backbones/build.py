"""The backbone registry."""

from fastreid.config import CfgNode
from fastreid.utils.registry import Registry

BACKBONE_REGISTRY = Registry("backbone", "MODEL.BACKBONE.NAME")


def build_backbone(cfg: CfgNode):
    """The backbone named by ``MODEL.BACKBONE.NAME``, randomly initialised, on the CPU."""
    return BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg)
