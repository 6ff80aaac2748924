"""The registry of meta-architectures and the one way to build a model."""

import torch
from torch import nn

from fastreid.config import CfgNode
from fastreid.utils.env import resolve_device
from fastreid.utils.registry import Registry

META_ARCH_REGISTRY = Registry("meta-architecture", "MODEL.META_ARCHITECTURE")


def _build_stage1(cfg: CfgNode) -> nn.Module:
    from fastreid.modeling.meta_arch.sdreid.stage1 import SDReIDStage1

    return SDReIDStage1(cfg)


def _build_stage2(cfg: CfgNode) -> nn.Module:
    from fastreid.modeling.meta_arch.sdreid.stage2 import SDReIDStage2

    return SDReIDStage2(cfg)


# Registered as builders: diffusers takes seconds to import, and only Stage 2 needs it.
META_ARCH_REGISTRY.register("SDReIDStage1", _build_stage1)
META_ARCH_REGISTRY.register("SDReIDStage2", _build_stage2)


def build_model(cfg: CfgNode) -> nn.Module:
    """The model of ``MODEL.META_ARCHITECTURE`` on ``MODEL.DEVICE``, randomly initialised.

    Of pretrained folders only the configurations are read; the model's ``load_pretrained`` reads weights.

    Raises:
        UserError: for a configuration that does not describe a model, or missing pretrained folders.
    """
    return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg).to(resolve_device(cfg.MODEL.DEVICE))


def build_meta_model(cfg: CfgNode) -> nn.Module:
    """The same model on the ``meta`` device: names, shapes and dtypes without numbers, in a second.

    Nothing is compiled.

    Raises:
        UserError: as `build_model`.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.SDMODEL.COMPILE = False
    with torch.device("meta"):
        return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
