"""Backbones, heads, losses, the diffusion parts and the meta-architectures made of them."""

from fastreid.modeling.meta_arch import META_ARCH_REGISTRY, build_meta_model, build_model

__all__ = ["META_ARCH_REGISTRY", "build_meta_model", "build_model"]
