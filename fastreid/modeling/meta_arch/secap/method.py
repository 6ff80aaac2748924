"""SeCap as a method: VDT's encoder and losses, and beside the person's feature the decoder's local one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastreid.config import POSITIVE, CfgNode, Changes, Key
from fastreid.config.releases import RELEASES, Release
from fastreid.modeling.backbones import BACKBONE_REGISTRY, build_vit
from fastreid.modeling.heads import build_head
from fastreid.modeling.meta_arch.base import ParameterRules
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.secap.decoder import PromptDecoder
from fastreid.modeling.meta_arch.secap.release import SeCapRelease
from fastreid.modeling.meta_arch.vdt import SUBTRACTION, VDT, ViewTokenTransformer
from fastreid.structures import Batch, DataNames
from fastreid.utils.errors import UserError

BOTH = Changes.BOTH
KEYS = {
    "USE_SECAP": Key(True, "have a local feature: prompts, their re-calibration and refinement", None, BOTH),
    "BACKBONE": {
        "USE_PRM": Key(True, "re-calibrate the prompts by the person's feature", None, BOTH),
        "PROMPT_LEN": Key(64, "learned prompts", POSITIVE, BOTH),
        "PROMPT_DEPTH": Key(2, "blocks of the refinement", POSITIVE, BOTH),
    },
}

OWN_BACKBONE = "build_secap_backbone"

RELEASES.append(
    Release(
        values={
            "MODEL.META_ARCHITECTURE": {"Baseline_multiview_SeCap": "SeCap"},
            "MODEL.BACKBONE.NAME": {"build_multiview_vit_backbone_SeCap": OWN_BACKBONE},
        },
        homonyms={"SOLVER.CHECKPOINT_PERIOD": "there it says when the best model may be written"},
    )
)


class Encoded(NamedTuple):
    """The outputs of SeCap's encoder for B images with N patches; width D."""

    features: Tensor
    """(B, D): the person's: the class token less the view token, after the final norm of each."""
    view_features: Tensor
    """(B, D): the view's: the view token after the final norm."""
    patch_tokens: Tensor
    """(B, N, D): the patches before the last block, row by row."""


class SeCapOutput(NamedTuple):
    """The outputs for B images; width D."""

    features: Tensor
    """(B, D): the person's, as in `Encoded`."""
    view_features: Tensor
    """(B, D): the view's, as in `Encoded`."""
    local_features: Tensor
    """(B, D): the decoder's."""


class PatchViewTokenTransformer(ViewTokenTransformer):
    """VDT's ViT without a subtraction inside the last block; its patches are those before that block."""

    def forward(self, images: Tensor) -> Encoded:
        """Encode (B, 3, H, W) float images, normalised, of the size given at construction."""
        tokens = self.decoupled(self.embed(images), self.blocks[:-1])
        person, view = self.norm(self.blocks[-1](tokens)[:, :2]).unbind(dim=1)
        return Encoded(person - view, view, tokens[:, 2:])


@BACKBONE_REGISTRY.register(OWN_BACKBONE, KEYS={"MODEL.BACKBONE": SUBTRACTION})
def build_secap_backbone(cfg: CfgNode) -> PatchViewTokenTransformer:
    """Return SeCap's encoder, randomly initialised, from ``MODEL.BACKBONE`` for ``INPUT.SIZE_TRAIN``."""
    return build_vit(cfg, PatchViewTokenTransformer, subtracts_in_blocks=cfg.MODEL.BACKBONE.INNER_SUB)


@META_ARCH_REGISTRY.register()
class SeCap(VDT):
    """VDT's losses, and ``MODEL.LOSSES`` on the local feature, which has a head of its own.

    The retrieval feature joins the person's with the local one. With ``build_plain_vit_backbone``, and
    without the local feature and the losses of views, it is `ViTBaseline`.
    """

    backbone_names = (OWN_BACKBONE, "build_plain_vit_backbone")
    release = SeCapRelease()

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        super().add_config(cfg)
        cfg.declare({"MODEL": KEYS})

    @classmethod
    def check_config(cls, cfg: CfgNode, training: bool) -> None:
        super().check_config(cfg, training)
        if cfg.MODEL.USE_SECAP and cfg.MODEL.BACKBONE.NAME != OWN_BACKBONE:
            raise UserError(
                f"MODEL.USE_SECAP is True, but {cfg.MODEL.BACKBONE.NAME} has no features for its decoder",
                f"set it to False, or MODEL.BACKBONE.NAME to {OWN_BACKBONE}",
            )

    def __init__(self, cfg: CfgNode, names: DataNames = DataNames()) -> None:
        super().__init__(cfg, names)
        self.refines = cfg.MODEL.USE_SECAP
        if self.refines:
            self.decoder = self._build_decoder(cfg.MODEL.BACKBONE)
            self.local_heads = build_head(cfg, self.backbone.feat_dim, cfg.MODEL.HEADS.NUM_CLASSES)
            if not self.identity_losses.need_classifier:
                self.local_heads.freeze_classifier()

    def _build_decoder(self, options: CfgNode) -> PromptDecoder:
        width, num_heads = self.backbone.feat_dim, self.backbone.blocks[0].attn.num_heads
        if width % (2 * num_heads):
            raise UserError(
                f"MODEL.BACKBONE.FEAT_DIM {width} must be a multiple of twice MODEL.BACKBONE.NUM_HEADS"
                f" {num_heads}: SeCap's refinement is half as wide"
            )
        rows, columns = self.backbone.patch_embed.grid_size
        sizes = (rows * columns, options.PROMPT_LEN, options.PROMPT_DEPTH)
        return PromptDecoder(width, num_heads, *sizes, recalibrates=options.USE_PRM)

    def encode(self, batch: Batch) -> Any:
        """Encode the images (B, 3, H, W) to a `SeCapOutput`; to what the backbone gives without a decoder."""
        encoded = super().encode(batch)
        if not self.refines:
            return encoded
        local = self.decoder(encoded.features, encoded.patch_tokens)
        return SeCapOutput(encoded.features, encoded.view_features, local)

    def losses(self, encoded: Any, batch: Batch) -> dict[str, Tensor]:
        """VDT's losses, and MODEL.LOSSES on the local feature."""
        local = {}
        if self.refines:
            targets = self.labels(batch, "targets")
            local = self.identity_losses(self.local_heads(encoded.local_features, targets), targets)
        person = super().losses(encoded, batch)  # last, so that its accuracy is the one that is logged
        return person | {f"{name}_local": loss for name, loss in local.items()}

    def features(self, encoded: Any, batch: Batch, parts: Sequence[str] | None = None) -> Tensor:
        """Join the chosen parts (B, D), each after the neck of its head."""
        inputs = {"person": (self.heads, encoded.features)}
        if self.refines:
            inputs["local"] = (self.local_heads, encoded.local_features)
        chosen = [inputs[name] for name in (inputs if parts is None else parts)]
        return torch.cat([head(features) for head, features in chosen], dim=1).float()

    def feature_parts(self) -> dict[str, int]:
        parts = super().feature_parts()
        return parts | {"local": self.local_heads.embedding_dim} if self.refines else parts

    def parameter_rules(self) -> ParameterRules:
        rules = super().parameter_rules()
        return rules._replace(
            heads=(*rules.heads, "local_heads."), training_only=(*rules.training_only, "local_heads.weight")
        )
