"""ResNet, timm's, as re-identification uses it."""

import logging
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import nn

from fastreid.config import CfgNode, Changes, Key, choice
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from fastreid.modeling.backbones.pretrained import read_pretrained, require_pretrained_weights
from fastreid.utils.errors import UserError
from fastreid.utils.weight_files import misfit

logger = logging.getLogger(__name__)

WIDTHS = {"18x": 512, "34x": 512, "50x": 2048, "101x": 2048}  # by fast-reid's names of depths
KEYS = {"LAST_STRIDE": Key(1, "of a ResNet's last stage; 2 = as for ImageNet", choice(1, 2), Changes.BOTH)}


class ResNetOutput(NamedTuple):
    """The output of a ResNet for B images; width D."""

    features: torch.Tensor
    """(B, D): the last stage's map, averaged over its pixels."""


class ResNet(nn.Module):
    """timm's ResNet with global average pooling, without its classifier.

    The last stage may keep the resolution, which gives re-identification a map of twice the size (Luo et al.,
    "Bag of Tricks and A Strong Baseline for Deep Person Re-identification", CVPRW 2019, sec. 3.4).

    Args:
        depth: "18x", "34x", "50x" or "101x".
        last_stride: of the last stage, 1 or 2.
    """

    def __init__(self, depth: str = "50x", last_stride: int = 1) -> None:
        super().__init__()
        self.feat_dim = WIDTHS[depth]
        self.network = timm.create_model(f"resnet{depth[:-1]}", num_classes=0)
        if last_stride == 1:
            for convolution in self.network.layer4[0].modules():
                if isinstance(convolution, nn.Conv2d):
                    convolution.stride = (1, 1)

    def load_pretrained(self, path: str | Path) -> None:
        """Load timm's or torchvision's ResNet weights; the classifier's are left out.

        Raises:
            UserError: for a file that is missing, cannot be read or does not fit; nothing is loaded then.
        """
        state = self._fitting(path)
        self.network.load_state_dict(state, strict=False)  # strict but for num_batches_tracked
        logger.info("ResNet weights from %s: %d tensors loaded", path, len(state))

    def check_pretrained(self, path: str | Path) -> str:
        """Say how much of the file would be loaded; raise as :meth:`load_pretrained`."""
        return f"{len(self._fitting(path))} tensors fit"

    def _fitting(self, path: str | Path) -> dict[str, torch.Tensor]:
        state, _ = read_pretrained(require_pretrained_weights(path, self.feat_dim), self.network)
        for name, value in self.network.state_dict().items():
            counts = name.endswith("num_batches_tracked")
            odd = misfit(state[name], value) if name in state else "" if counts else "missing"
            if odd:
                raise UserError(
                    f"pretrained weights {path} do not fit the ResNet: {name} is {odd}",
                    "check MODEL.BACKBONE.DEPTH, or name another file with MODEL.BACKBONE.PRETRAIN_PATH",
                )
        return state

    def forward(self, images: torch.Tensor) -> ResNetOutput:
        """Encode (B, 3, H, W) float images, normalised, of any size."""
        return ResNetOutput(self.network(images))


@BACKBONE_REGISTRY.register(KEYS={"MODEL.BACKBONE": KEYS})
def build_resnet_backbone(cfg: CfgNode) -> ResNet:
    """Return a randomly initialised ResNet from ``MODEL.BACKBONE``.

    Raises:
        UserError: for a depth that is no ResNet's, or another width than it has.
    """
    options = cfg.MODEL.BACKBONE
    if options.DEPTH not in WIDTHS:
        raise UserError(
            f"MODEL.BACKBONE.DEPTH {options.DEPTH!r} is no ResNet's", f"use one of {', '.join(WIDTHS)}"
        )
    if options.FEAT_DIM != WIDTHS[options.DEPTH]:
        raise UserError(
            f"MODEL.BACKBONE.FEAT_DIM {options.FEAT_DIM} contradicts MODEL.BACKBONE.DEPTH {options.DEPTH!r},"
            f" whose width is {WIDTHS[options.DEPTH]}",
            f"set FEAT_DIM to {WIDTHS[options.DEPTH]}",
        )
    return ResNet(options.DEPTH, options.LAST_STRIDE)
