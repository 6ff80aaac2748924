"""A trained model from its checkpoint, for evaluation and other uses."""

from typing import Any

from fastreid.config import CfgNode
from fastreid.modeling import MetaArch, build_model, fit_config, method_of
from fastreid.modeling.assets import required_weights
from fastreid.modeling.weights import check_method, load_model_weights
from fastreid.structures import DataNames
from fastreid.utils.checkpoint import load_checkpoint, without_module_prefix


def load_trained_model(cfg: CfgNode, checkpoint: dict[str, Any] | None = None) -> MetaArch:
    """Return the model of `cfg` in eval mode with the weights of MODEL.WEIGHTS.

    It needs neither training data nor pretrained files. The number of identities is the checkpoint's; a
    classifier of another number is left out.

    Args:
        checkpoint: what `load_checkpoint` gave for MODEL.WEIGHTS; None: read it.

    Raises:
        UserError: if MODEL.WEIGHTS is empty, cannot be read, is of another method, or lacks what evaluation
            needs (unless MODEL.ALLOW_PARTIAL_WEIGHTS).
    """
    weights = required_weights(method_of(cfg), cfg, training=False)
    checkpoint = checkpoint or load_checkpoint(weights)
    cfg, names = fit_to_checkpoint(cfg, checkpoint)
    model = build_model(cfg, names)
    check_method(checkpoint["meta"], model, "eval", weights)
    load_model_weights(model, checkpoint["model"], "eval", cfg.MODEL.ALLOW_PARTIAL_WEIGHTS, weights)
    return model.eval()


def fit_to_checkpoint(cfg: CfgNode, checkpoint: dict[str, Any]) -> tuple[CfgNode, DataNames]:
    """Return a frozen copy of `cfg` that fits a checkpoint, and the names of the data that it was trained on.

    The names are empty for a file from before checkpoints had them.
    """
    meta = checkpoint["meta"]
    names = DataNames.from_dict(meta.get("names") or {})
    fitted = fit_config(cfg, meta.get("num_classes", 1), names.views)
    fitted.defrost()
    method_of(cfg).fit_to_weights(fitted, without_module_prefix(checkpoint["model"]))
    fitted.freeze()
    return fitted, names
