"""The registry of backbones, and the one way to build one."""

import torch
from torch import nn

from fastreid.config import CfgNode
from fastreid.utils.errors import UserError
from fastreid.utils.registry import Registry

BACKBONE_REGISTRY = Registry("backbone", "MODEL.BACKBONE.NAME")


def build_backbone(cfg: CfgNode) -> nn.Module:
    """Return the backbone of ``MODEL.BACKBONE.NAME``, randomly initialised.

    It has `feat_dim`, the width of its features, which heads and losses go by. MODEL.BACKBONE.COMPILE
    compiles its calls, unless it is on the ``meta`` device.

    Raises:
        UserError: for an unknown name, sizes that contradict each other, or a backbone without `feat_dim`.
    """
    backbone = cfg.entry("MODEL.BACKBONE.NAME")(cfg)
    if not isinstance(getattr(backbone, "feat_dim", None), int):
        raise UserError(
            f"MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME}: {type(backbone).__name__} does not say how wide"
            " its features are",
            "give it the attribute feat_dim, a whole number",
        )
    if cfg.MODEL.BACKBONE.COMPILE and not any(p.device.type == "meta" for p in backbone.parameters()):
        backbone.compile()  # in place: the names in the state dict stay
    return backbone


def pretrainable(backbone: nn.Module, name: str) -> nn.Module:
    """Return `backbone`, which MODEL.BACKBONE.NAME names, if it can start from MODEL.BACKBONE.PRETRAIN_PATH.

    It has ``load_pretrained(path)``, and ``check_pretrained(path)``, which says what would be loaded; both
    raise a UserError for a file that does not fit.

    Raises:
        UserError: if it lacks one.
    """
    lacking = [part for part in ("load_pretrained", "check_pretrained") if not hasattr(backbone, part)]
    if lacking:
        raise UserError(
            f"MODEL.BACKBONE.PRETRAIN is True, but {name} loads no pretrained weights",
            f"set it to False, or give the backbone {' and '.join(lacking)} (path)",
        )
    return backbone


def feature_width(cfg: CfgNode) -> int:
    """Return the width of the features of the backbone that `cfg` names, without numbers in it."""
    with torch.device("meta"):
        return build_backbone(cfg).feat_dim
