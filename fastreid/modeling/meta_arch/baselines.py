"""The baselines: a backbone and an identity head, which know nothing of views."""

from typing import Any, ClassVar

from torch import Tensor

from fastreid.config import CfgNode
from fastreid.modeling.meta_arch.base import MetaArch
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from fastreid.structures import Batch
from fastreid.utils.errors import UserError


class Baseline(MetaArch):
    """The identity losses of ``MODEL.LOSSES`` on the features of one backbone."""

    backbone_names: ClassVar[tuple[str, ...]]
    """Those that it may have; the first one is its own."""

    @classmethod
    def check_config(cls, cfg: CfgNode, training: bool) -> None:
        if cfg.MODEL.BACKBONE.NAME not in cls.backbone_names:
            raise UserError(
                f"MODEL.BACKBONE.NAME is {cfg.MODEL.BACKBONE.NAME}, but {cls.__name__} is made of"
                f" {' or '.join(cls.backbone_names)}",
                f"set it to {cls.backbone_names[0]}, or begin with a file of configs/methods",
            )

    def encode(self, batch: Batch) -> Any:
        """Encode the images (B, 3, H, W) to what the backbone gives."""
        return self.backbone(self.pixels(batch))

    def losses(self, encoded: Any, batch: Batch) -> dict[str, Tensor]:
        """MODEL.LOSSES on the identity head."""
        targets = self.labels(batch, "targets")
        return self.identity_losses(self.heads(encoded.features, targets), targets)


@META_ARCH_REGISTRY.register()
class ViTBaseline(Baseline):
    """A ViT with BNNeck: what the methods of aerial-ground re-identification are compared with."""

    backbone_names = ("build_plain_vit_backbone",)


@META_ARCH_REGISTRY.register()
class BoT(Baseline):
    """A ResNet with BNNeck, without the center loss.

    Luo et al., "Bag of Tricks and A Strong Baseline for Deep Person Re-identification", CVPRW 2019.
    """

    backbone_names = ("build_resnet_backbone",)
