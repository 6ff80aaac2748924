"""Backbones, heads, losses, and the methods made of them."""

from fastreid.modeling.meta_arch import (
    META_ARCH_REGISTRY,
    MetaArch,
    build_meta_model,
    build_model,
    check_assets,
    fit_config,
    method_of,
)
