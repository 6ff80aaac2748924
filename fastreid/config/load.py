"""A configuration: its defaults, its file and the command line, and the check of the whole."""

import os
from collections.abc import Sequence
from importlib import import_module

from fastreid.config.defaults import KEYS
from fastreid.config.files import flat_keys
from fastreid.config.keys import Registered
from fastreid.config.node import CfgNode
from fastreid.config.releases import METHOD


def get_cfg() -> CfgNode:
    """Return a fresh, mutable configuration with the defaults, for the default method."""
    cfg = CfgNode()
    cfg.declare(KEYS)
    for key in list(cfg.declared.values()):
        if isinstance(key.allowed, Registered):
            import_module(key.allowed.home)  # where registered parts have keys of their own
    cfg.declare_registered()
    cfg.DATASETS.ROOT = os.environ.get("FASTREID_DATASETS", "datasets")
    cfg.use_method(cfg.MODEL.META_ARCHITECTURE)
    return cfg


def load_config(config_file: str, options: Sequence[str] = (), imports: Sequence[str] = ()) -> CfgNode:
    """Return the configuration, not yet checked: defaults, the file (if any), then ``["KEY", "VALUE", …]``.

    Args:
        imports: modules or .py files that are imported first, beside those of the file's IMPORTS.

    Raises:
        UserError: for a file that cannot be read, an unknown key or a value of the wrong type.
    """
    cfg = get_cfg()
    if imports:
        cfg.merge_values({"IMPORTS": list(imports)}, "--imports")
    if config_file:
        cfg.merge_from_file(config_file)
    cfg.merge_from_list(list(options))
    return cfg


def check_config(cfg: CfgNode, world_size: int = 1, training: bool = True) -> None:
    """Check every value by its key, then the rules between keys: the method's, the sampler's for a training.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    for name, value in flat_keys(cfg).items():
        cfg.declared[name].check(name, value)
    cfg.entry(METHOD).check_config(cfg, training)
    if training:
        sampler = cfg.entry("DATALOADER.SAMPLER_TRAIN")
        sampler.check_batch_size(cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE, world_size)
