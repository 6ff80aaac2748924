"""VDT: what the view adds is taken away from the class token, block by block.

Zhang et al., "View-decoupled Transformer for Person Re-identification under Aerial-ground Camera Network",
CVPR 2024, arXiv 2403.14513.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastreid.config import NOT_NEGATIVE, CfgNode, Changes, Key
from fastreid.config.releases import RELEASES, Release
from fastreid.modeling.backbones import BACKBONE_REGISTRY, VisionTransformer, build_vit
from fastreid.modeling.heads import build_head
from fastreid.modeling.losses import CrossEntropyLoss, accuracy
from fastreid.modeling.meta_arch.base import ParameterRules
from fastreid.modeling.meta_arch.baselines import Baseline
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.release_format import ReleaseFormat
from fastreid.structures import Batch, DataNames
from fastreid.utils.errors import UserError
from fastreid.utils.events import put_scalar

SUBTRACTION = {
    "INNER_SUB": Key(True, "subtract after each block too, not only at the end", None, Changes.BOTH)
}
VIEW_LOSSES = {
    "VIEW_ID": Key(True, "train the view head on the view token"),
    "VIEW_OREG": Key(True, "keep the person's feature and the view's orthogonal"),
    "VIEW_LAMBDA": Key(0.001, "weight of either loss", NOT_NEGATIVE),
}

OWN_BACKBONE = "build_view_token_vit_backbone"

# Of fast-reid's forks from VDT on.
CHECKPOINT_PERIOD = {"SOLVER.CHECKPOINT_PERIOD": "there it says when the best model may be written"}

RELEASES.append(
    Release(
        values={
            "MODEL.META_ARCHITECTURE": {"Baseline_multiview": "VDT"},
            "MODEL.BACKBONE.NAME": {"build_multiview_vit_backbone_onebranch": OWN_BACKBONE},
        },
        homonyms=CHECKPOINT_PERIOD,
    )
)


class VDTRelease(ReleaseFormat):
    """The authors' names are ours; they count the ground as view 0 and the air as view 1.

    Args:
        more: names beside those of the ViT and the heads, as `renamed` of the base class.
        unused: as in the base class.
    """

    def __init__(
        self, more: Mapping[str, str] | None = None, unused: Mapping[str, str] | None = None
    ) -> None:
        vit = r"(backbone\.(?:cls_token|view_token|pos_embed|(?:patch_embed|blocks|norm)\..+))"
        heads = r"((?:view_)?heads\.(?:bottleneck\.0\..+|weight))"
        super().__init__({vit: r"\1", heads: r"\1", **(more or {})}, unused)

    def rearranged(self, reference: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Put the view classifier's rows in our order."""
        classifier = "view_heads.weight"
        if classifier not in reference:
            return reference
        return {**reference, classifier: reference[classifier].flip(0)}


class VDTOutput(NamedTuple):
    """The outputs for B images; width D."""

    features: Tensor
    """(B, D): the person's: the class token less the view token, after the final norm of each."""
    view_features: Tensor
    """(B, D): the view's: the view token after the final norm."""


class ViewTokenTransformer(VisionTransformer):
    """A ViT with a view token behind the class token, which is subtracted from it (VDT, sec. 4.2).

    Args:
        subtracts_in_blocks: subtract after each block, not only at the end.
        kwargs: as in `VisionTransformer`.
    """

    extra_tokens = 1

    def __init__(self, *args: Any, subtracts_in_blocks: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.subtracts_in_blocks = subtracts_in_blocks
        self.view_token = nn.Parameter(torch.zeros(1, 1, self.feat_dim))

    def prefix(self, batch: int) -> Tensor:
        return torch.cat([super().prefix(batch), self.view_token.expand(batch, -1, -1)], dim=1)

    def forward(self, images: Tensor) -> VDTOutput:
        """Encode (B, 3, H, W) float images, normalised, of the size given at construction."""
        tokens = self.decoupled(self.embed(images), self.blocks)
        person, view = self.norm(tokens[:, :2]).unbind(dim=1)
        return VDTOutput(person - view, view)

    def decoupled(self, tokens: Tensor, blocks: Iterable[nn.Module]) -> Tensor:
        """Pass tokens (B, 2 + N, D) through `blocks`, and subtract after each of them."""
        for block in blocks:
            tokens = block(tokens)
            if self.subtracts_in_blocks:
                tokens = torch.cat([tokens[:, :1] - tokens[:, 1:2], tokens[:, 1:]], dim=1)
        return tokens


@BACKBONE_REGISTRY.register(KEYS={"MODEL.BACKBONE": SUBTRACTION})
def build_view_token_vit_backbone(cfg: CfgNode) -> ViewTokenTransformer:
    """Return VDT's encoder, randomly initialised, from ``MODEL.BACKBONE`` for ``INPUT.SIZE_TRAIN``."""
    return build_vit(cfg, ViewTokenTransformer, subtracts_in_blocks=cfg.MODEL.BACKBONE.INNER_SUB)


@META_ARCH_REGISTRY.register()
class VDT(Baseline):
    """Identity losses on the person's feature, a view classifier on the view's, and both kept orthogonal.

    With ``build_plain_vit_backbone`` and without the losses of views it is `ViTBaseline`.
    """

    backbone_names = (OWN_BACKBONE, "build_plain_vit_backbone")
    release = VDTRelease()

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        cfg.declare({"MODEL.LOSSES.CE": VIEW_LOSSES})

    @classmethod
    def check_config(cls, cfg: CfgNode, training: bool) -> None:
        super().check_config(cfg, training)
        own_backbone = cls.backbone_names[0]
        for name in ("VIEW_ID", "VIEW_OREG"):
            if cfg.MODEL.LOSSES.CE[name] and cfg.MODEL.BACKBONE.NAME != own_backbone:
                raise UserError(
                    f"MODEL.LOSSES.CE.{name} is True, but {cfg.MODEL.BACKBONE.NAME} has no view token",
                    f"set it to False, or MODEL.BACKBONE.NAME to {own_backbone}",
                )

    def __init__(self, cfg: CfgNode, names: DataNames = DataNames()) -> None:
        super().__init__(cfg, names)
        losses = cfg.MODEL.LOSSES.CE
        self.weight, self.classifies, self.separates = losses.VIEW_LAMBDA, losses.VIEW_ID, losses.VIEW_OREG
        if self.classifies or self.separates:
            self.view_loss = CrossEntropyLoss(**CrossEntropyLoss.from_config(cfg))
            self.view_heads = build_head(cfg, self.backbone.feat_dim, self.num_views())
            if not self.classifies:
                self.view_heads.freeze_classifier()

    def num_views(self) -> int:
        """Return how many views it tells apart."""
        return len(self.names.views) or 2

    def views(self, batch: Batch) -> Tensor:
        """Return the images' views as it counts them, int64 (B,)."""
        return self.labels(batch, "viewids")

    def losses(self, encoded: VDTOutput, batch: Batch) -> dict[str, Tensor]:
        """Return MODEL.LOSSES on the person's feature, the view's class, and the cosine between the two."""
        targets = self.labels(batch, "targets")
        person = self.heads(encoded.features, targets)
        losses = self.identity_losses(person, targets)
        if not (self.classifies or self.separates):
            return losses
        views = self.views(batch)
        view = self.view_heads(encoded.view_features, views)
        if self.classifies:
            losses["loss_view"] = self.weight * self.view_loss(view, views)
            put_scalar("view_accuracy", accuracy(view.scores, views))
        if self.separates:
            cosines = nn.functional.cosine_similarity(person.features, view.features)
            losses["loss_orthogonal"] = self.weight * cosines.abs().mean()
        return losses

    def parameter_rules(self) -> ParameterRules:
        heads = ("heads.", "view_heads.")
        rules = super().parameter_rules()
        return rules._replace(heads=heads, training_only=("heads.weight", "view_heads."))
