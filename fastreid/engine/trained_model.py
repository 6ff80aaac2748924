"""A trained model from its checkpoint, for evaluation and other uses."""

from typing import Any

from torch import nn

from fastreid.config import CfgNode
from fastreid.modeling import build_model
from fastreid.modeling.assets import required_weights
from fastreid.utils.checkpoint import check_stage, load_checkpoint, load_model_weights


def load_trained_model(cfg: CfgNode, checkpoint: dict[str, Any] | None = None) -> nn.Module:
    """The model of `cfg` in eval mode with the weights of MODEL.WEIGHTS.

    It needs neither training data nor pretrained files. The number of identities is the checkpoint's; a
    classifier of another number is left out.

    Args:
        checkpoint: what `load_checkpoint` gave for MODEL.WEIGHTS; None: read it.

    Raises:
        UserError: if MODEL.WEIGHTS is empty, cannot be read, is of the other stage, or lacks what
            evaluation needs (unless MODEL.ALLOW_PARTIAL_WEIGHTS).
    """
    weights = required_weights(cfg, training=False)
    checkpoint = checkpoint or load_checkpoint(weights)
    cfg = with_num_classes(cfg, checkpoint["meta"].get("num_classes", 1))
    model = build_model(cfg)
    check_stage(checkpoint["meta"], model, "eval", weights)
    load_model_weights(model, checkpoint["model"], "eval", cfg.MODEL.ALLOW_PARTIAL_WEIGHTS, weights)
    return model.eval()


def with_num_classes(cfg: CfgNode, num_classes: int) -> CfgNode:
    """A frozen copy of `cfg` whose MODEL.HEADS.NUM_CLASSES, when 0, is `num_classes`."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.HEADS.NUM_CLASSES = cfg.MODEL.HEADS.NUM_CLASSES or num_classes
    cfg.freeze()
    return cfg
