"""The registry of heads, and the one way to build one."""

from typing import Any

from torch import nn

from fastreid.config import CfgNode
from fastreid.utils.errors import UserError
from fastreid.utils.registry import Registry


def _lacks(entry: Any) -> str:
    if not (isinstance(entry, type) and issubclass(entry, nn.Module) and hasattr(entry, "from_config")):
        return "a head is a Module (feat_dim, num_classes, **from_config(cfg)) with that class method"
    return ""


REID_HEADS_REGISTRY = Registry("head", "MODEL.HEADS.NAME", _lacks)


def build_head(cfg: CfgNode, feat_dim: int, num_classes: int) -> nn.Module:
    """Return the head of ``MODEL.HEADS`` for features of width `feat_dim`, randomly initialised.

    It has `embedding_dim`, the width of the feature that it gives in eval mode.

    Raises:
        UserError: for an unknown name, or a head without `embedding_dim`.
    """
    head = REID_HEADS_REGISTRY.get(cfg.MODEL.HEADS.NAME)
    head = head(feat_dim, num_classes, **head.from_config(cfg))
    if not isinstance(getattr(head, "embedding_dim", None), int):
        raise UserError(
            f"MODEL.HEADS.NAME {cfg.MODEL.HEADS.NAME} does not say how wide its feature is",
            "give it the attribute embedding_dim, a whole number",
        )
    return head
