"""Image encoders: images in, :class:`EncoderOutput` out."""

from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from fastreid.modeling.backbones.patch_embed import PatchEmbed
from fastreid.modeling.backbones.pretrained import PretrainedReport, load_pretrained_vit
from fastreid.modeling.backbones.vit import EncoderOutput, VisionTransformer, build_vit_backbone

__all__ = [
    "BACKBONE_REGISTRY",
    "EncoderOutput",
    "PatchEmbed",
    "PretrainedReport",
    "VisionTransformer",
    "build_vit_backbone",
    "load_pretrained_vit",
]
