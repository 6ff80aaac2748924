"""Meta-architectures: whole models, from a batch to losses or features."""

from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY, build_meta_model, build_model

__all__ = ["META_ARCH_REGISTRY", "build_meta_model", "build_model"]
