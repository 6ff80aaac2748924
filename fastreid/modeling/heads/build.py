"""The registry of heads, and the one way to build one."""

from typing import Any

from torch import nn

from fastreid.config import CfgNode
from fastreid.utils.errors import UserError
from fastreid.utils.registry import Registry


def _lacks(entry: Any) -> str:
    if not (isinstance(entry, type) and issubclass(entry, nn.Module) and hasattr(entry, "from_config")):
        return "a head is a Module (feat_dim, num_classes, **from_config(cfg)) with that class method"
    return "" if hasattr(entry, "freeze_classifier") else "it has no freeze_classifier, see EmbeddingHead"


REID_HEADS_REGISTRY = Registry("head", "MODEL.HEADS.NAME", _lacks)


def build_head(cfg: CfgNode, feat_dim: int, num_classes: int) -> nn.Module:
    """Return the head of ``MODEL.HEADS`` for features of width `feat_dim`, randomly initialised.

    It has `embedding_dim`, the width of the feature that it gives in eval mode.

    Raises:
        UserError: for an unknown name, or a head without `embedding_dim`.
    """
    kind = cfg.entry("MODEL.HEADS.NAME")
    head = kind(feat_dim, num_classes, **kind.from_config(cfg))
    if not isinstance(getattr(head, "embedding_dim", None), int):
        raise UserError(
            f"MODEL.HEADS.NAME {cfg.MODEL.HEADS.NAME}: {kind.__name__} does not say how wide its feature is",
            "give it the attribute embedding_dim, a whole number",
        )
    return head
