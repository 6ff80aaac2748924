"""A trained model from its checkpoint, for evaluation and other uses, and how a user names one."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastreid.config import CfgNode, get_cfg, load_config
from fastreid.config.files import join_layers, read_layers, stored_config
from fastreid.engine.hooks.checkpointing import BEST, FINAL
from fastreid.modeling import MetaArch, build_model, fit_config, method_of
from fastreid.modeling.assets import required_weights
from fastreid.modeling.weights import check_method, load_model_weights
from fastreid.structures import DataNames
from fastreid.utils.checkpoint import load_checkpoint, without_module_prefix
from fastreid.utils.errors import UserError
from fastreid.utils.weight_files import require_file


def load_trained_model(cfg: CfgNode) -> MetaArch:
    """Return the model of `cfg` in eval mode with the weights of MODEL.WEIGHTS.

    It needs neither training data nor pretrained files. The number of identities is the checkpoint's; a
    classifier of another number is left out.

    Raises:
        UserError: if MODEL.WEIGHTS is empty, cannot be read, is of another method, or lacks what evaluation
            needs (unless MODEL.ALLOW_PARTIAL_WEIGHTS).
    """
    weights = required_weights(method_of(cfg), cfg, training=False)
    checkpoint = load_checkpoint(weights)
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


def find_checkpoint(model: str | os.PathLike) -> Path:
    """Return the checkpoint that a user's name of a model means.

    Args:
        model: a checkpoint, or the folder of a run: its ``model_best.pth``, else its ``model_final.pth``.

    Raises:
        UserError: if there is none, or something else in its place.
    """
    path = Path(model)
    if path.is_dir():
        found = next((path / name for name in (BEST, FINAL) if (path / name).is_file()), None)
        if found is None:
            raise UserError(f"no {BEST} or {FINAL} in {path}", "name a checkpoint, or another run's folder")
        return found
    require_file(path, "checkpoint", "name a .pth file, or the folder of a run")
    return path


def trained_config(
    model: str | os.PathLike,
    config_file: str | os.PathLike | None = None,
    options: Sequence[str] = (),
    imports: Sequence[str] = (),
) -> CfgNode:
    """Return the mutable configuration of a trained model, which MODEL.WEIGHTS names.

    Args:
        model: as in `find_checkpoint`.
        config_file: a YAML file. None or empty: the model's own, which is ``config.yaml`` beside the
            checkpoint or else what training stored in it; OUTPUT_DIR is then the checkpoint's folder.
        options: ``["KEY", "VALUE", …]`` that win over the configuration.
        imports: modules or .py files that may be imported. Those that only the model's own configuration
            names are not.

    Raises:
        UserError: for a file, key or value that cannot be used, and without a configuration.
    """
    if "MODEL.WEIGHTS" in options[::2]:
        raise UserError(f"the checkpoint is {model}, and MODEL.WEIGHTS names one, too", "leave that out")
    named = load_config(os.fspath(config_file), imports=imports) if config_file else None
    path = find_checkpoint(model)
    cfg = _own_config(path, imports) if named is None else named
    cfg.MODEL.WEIGHTS = str(path)
    cfg.merge_from_list(list(options))
    return cfg


def model_config(args: argparse.Namespace) -> CfgNode:
    """Return the mutable configuration that the arguments of `CommandLineParser.add_model` name.

    Raises:
        UserError: as `trained_config`, and if they name neither a model nor a configuration.
    """
    if args.model:
        return trained_config(args.model, args.config_file, args.opts, args.imports)
    if not args.config_file:
        raise UserError("no model is named", "add --model PATH, a checkpoint or the folder of a run")
    return load_config(args.config_file, args.opts, args.imports)


def _own_config(path: Path, imports: Sequence[str]) -> CfgNode:
    """Return the configuration beside the checkpoint at `path`, or in it."""
    cfg, beside = get_cfg(), path.with_name("config.yaml")
    if beside.is_file():
        cfg.merge_stored(join_layers(read_layers(beside)), str(beside), imports)
    elif (meta := load_checkpoint(path)["meta"]).get("config"):
        cfg.merge_stored(stored_config(meta, str(path)), f"stored in {path}", imports)
    else:
        raise UserError(
            f"no configuration for {path}: there is no {beside}, and the checkpoint holds none",
            "name the YAML file that it was trained with (--config-file)",
        )
    cfg.OUTPUT_DIR = str(path.parent)
    return cfg
