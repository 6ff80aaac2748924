"""VDT with a second, local feature: what SeCap and ViSA have in common."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastreid.config import CfgNode
from fastreid.modeling.heads import build_head
from fastreid.modeling.meta_arch.base import ParameterRules
from fastreid.modeling.meta_arch.vdt import VDT
from fastreid.structures import Batch
from fastreid.utils.errors import UserError


class LocalFeatureVDT(VDT):
    """VDT's losses, and ``MODEL.LOSSES`` on a local feature with a head of its own; both are searched with.

    A subclass calls :meth:`add_local_head` behind what makes the feature, and gives it in `encode` as the
    field ``local_features`` (B, D). Without the feature, and without the losses of views, on
    ``build_plain_vit_backbone``, it is `ViTBaseline`.
    """

    local_switch: ClassVar[str]
    """The key of MODEL that says whether it has the feature."""

    @classmethod
    def check_config(cls, cfg: CfgNode, training: bool) -> None:
        super().check_config(cfg, training)
        own = cls.backbone_names[0]
        if cfg.MODEL[cls.local_switch] and cfg.MODEL.BACKBONE.NAME != own:
            raise UserError(
                f"MODEL.{cls.local_switch} is True, but {cfg.MODEL.BACKBONE.NAME} has no features for it",
                f"set it to False, or MODEL.BACKBONE.NAME to {own}",
            )

    @property
    def has_local(self) -> bool:
        return hasattr(self, "local_heads")

    def add_local_head(self, cfg: CfgNode) -> None:
        """Make the head of the local feature."""
        self.local_heads = build_head(cfg, self.backbone.feat_dim, cfg.MODEL.HEADS.NUM_CLASSES)
        if not self.identity_losses.need_classifier:
            self.local_heads.freeze_classifier()

    def losses(self, encoded: Any, batch: Batch) -> dict[str, Tensor]:
        """VDT's losses, and MODEL.LOSSES on the local feature."""
        local = {}
        if self.has_local:
            targets = self.labels(batch, "targets")
            local = self.identity_losses(self.local_heads(encoded.local_features, targets), targets)
        person = super().losses(encoded, batch)  # last, so that its accuracy is the one that is logged
        return person | {f"{name}_local": loss for name, loss in local.items()}

    def features(self, encoded: Any, batch: Batch, parts: Sequence[str] | None = None) -> Tensor:
        """Join the chosen parts (B, D), each after the neck of its head."""
        inputs = {"person": (self.heads, encoded.features)}
        if self.has_local:
            inputs["local"] = (self.local_heads, encoded.local_features)
        chosen = [inputs[name] for name in (inputs if parts is None else parts)]
        return torch.cat([head(features) for head, features in chosen], dim=1).float()

    def feature_parts(self) -> dict[str, int]:
        parts = super().feature_parts()
        return parts | {"local": self.local_heads.embedding_dim} if self.has_local else parts

    def parameter_rules(self) -> ParameterRules:
        rules = super().parameter_rules()
        return rules._replace(
            heads=(*rules.heads, "local_heads."), training_only=(*rules.training_only, "local_heads.weight")
        )
