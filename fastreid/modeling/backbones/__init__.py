"""Image encoders."""

from fastreid.modeling.backbones.build import BACKBONE_REGISTRY, build_backbone, feature_width, pretrainable
from fastreid.modeling.backbones.patch_embed import PatchEmbed
from fastreid.modeling.backbones.pretrained import PretrainedReport, require_pretrained_weights
from fastreid.modeling.backbones.resnet import ResNet
from fastreid.modeling.backbones.view_prompt_vit import ViewPromptTransformer
from fastreid.modeling.backbones.vit import VisionTransformer, build_vit
