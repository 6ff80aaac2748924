"""The registry of methods and the one way to build a model."""

from inspect import signature
from typing import Any

import torch

from fastreid.config import CfgNode
from fastreid.modeling.meta_arch.base import MetaArch
from fastreid.structures import DataNames
from fastreid.utils.env import resolve_device
from fastreid.utils.memory import memory_shortage_named, too_large_named
from fastreid.utils.registry import Registry

TOO_LARGE = "the model that the config describes", "look for a size that is not meant"
TEST_LABELS = ("camids", "viewids")


def lacks_of_method(entry: Any) -> str:
    """Say what a class lacks to be a method; empty if nothing. The contract that the registry holds."""
    if not (isinstance(entry, type) and issubclass(entry, MetaArch)):
        return "a method is a class derived from MetaArch (fastreid/modeling/meta_arch/base.py)"
    missing = [name for name in ("encode", "losses") if getattr(entry, name) is getattr(MetaArch, name)]
    if missing:
        return f"{entry.__name__} has no {' and no '.join(missing)} of its own"
    try:
        signature(entry).bind(None, None)
    except TypeError:
        return f"{entry.__name__} is not made by (cfg, names), two arguments"
    unknown = sorted(set(entry.test_labels) - set(TEST_LABELS))
    if unknown:
        return f"its test_labels name {', '.join(map(repr, unknown))}; known: {', '.join(TEST_LABELS)}"
    return ""


META_ARCH_REGISTRY = Registry("meta-architecture", "MODEL.META_ARCHITECTURE", lacks_of_method)


def method_of(cfg: CfgNode) -> type[MetaArch]:
    """Return the class of the method that MODEL.META_ARCHITECTURE names.

    Raises:
        UserError: for an unknown name.
    """
    return cfg.entry("MODEL.META_ARCHITECTURE")


def check_assets(cfg: CfgNode, training: bool) -> None:
    """Check that the files that a fresh training or an evaluation reads are there and fit.

    Raises:
        UserError: naming the first missing or unfit one, its key and what to do.
    """
    for asset in method_of(cfg).assets(cfg, training):
        asset.check()


def fit_config(cfg: CfgNode, num_classes: int, views: tuple[str, ...] = ()) -> CfgNode:
    """Return a frozen copy of `cfg` in which what the training data decides is filled in.

    Raises:
        UserError: if `cfg` says something else than the data.
    """
    cfg = cfg.clone()
    cfg.defrost()
    method_of(cfg).fit_to_data(cfg, num_classes, views)
    cfg.freeze()
    return cfg


def build_model(cfg: CfgNode, names: DataNames = DataNames()) -> MetaArch:
    """Build the model of ``MODEL.META_ARCHITECTURE`` on ``MODEL.DEVICE``, randomly initialised.

    Of pretrained folders only the configurations are read; the model's ``load_pretrained`` reads weights.

    Args:
        cfg: as `fit_config` gives it.
        names: what the training data calls things.

    Raises:
        UserError: for a configuration that does not describe a model, missing pretrained folders, or a GPU
            without room for the model.
    """
    with too_large_named(*TOO_LARGE):
        model = method_of(cfg)(cfg, names)
    with memory_shortage_named("the model", "free that GPU, or choose another by MODEL.DEVICE"):
        return model.to(resolve_device(cfg.MODEL.DEVICE))


def build_meta_model(cfg: CfgNode, names: DataNames = DataNames()) -> MetaArch:
    """Build the same model on the ``meta`` device: names, shapes and dtypes without numbers, in a second.

    Raises:
        UserError: as `build_model`.
    """
    with too_large_named(*TOO_LARGE), torch.device("meta"):
        return method_of(cfg)(cfg, names)
