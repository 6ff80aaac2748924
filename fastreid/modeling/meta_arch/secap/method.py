"""SeCap as a method: VDT's encoder and losses, and beside the person's feature the decoder's local one."""

from typing import Any, NamedTuple

from torch import Tensor

from fastreid.config import POSITIVE, CfgNode, Changes, Key
from fastreid.config.releases import RELEASES, Release
from fastreid.modeling.backbones import BACKBONE_REGISTRY, build_vit
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.local_feature import LocalFeatureVDT, PatchViewTokenTransformer
from fastreid.modeling.meta_arch.secap.decoder import PromptDecoder
from fastreid.modeling.meta_arch.secap.release import SeCapRelease
from fastreid.modeling.meta_arch.vdt import CHECKPOINT_PERIOD, SUBTRACTION
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
        homonyms=CHECKPOINT_PERIOD,
    )
)


class SeCapOutput(NamedTuple):
    """The outputs for B images; width D."""

    features: Tensor
    """(B, D): the person's, as in `PatchOutput`."""
    view_features: Tensor
    """(B, D): the view's, as in `PatchOutput`."""
    local_features: Tensor
    """(B, D): the decoder's."""


@BACKBONE_REGISTRY.register(OWN_BACKBONE, KEYS={"MODEL.BACKBONE": SUBTRACTION})
def build_secap_backbone(cfg: CfgNode) -> PatchViewTokenTransformer:
    """Return SeCap's encoder, randomly initialised, from ``MODEL.BACKBONE`` for ``INPUT.SIZE_TRAIN``."""
    return build_vit(cfg, PatchViewTokenTransformer, subtracts_in_blocks=cfg.MODEL.BACKBONE.INNER_SUB)


@META_ARCH_REGISTRY.register()
class SeCap(LocalFeatureVDT):
    """VDT with a local feature that the decoder finds by its prompts."""

    backbone_names = (OWN_BACKBONE, "build_plain_vit_backbone")
    local_switch = "USE_SECAP"
    release = SeCapRelease()

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        super().add_config(cfg)
        cfg.declare({"MODEL": KEYS})

    def __init__(self, cfg: CfgNode, names: DataNames = DataNames()) -> None:
        super().__init__(cfg, names)
        if cfg.MODEL.USE_SECAP:
            self.decoder = self._build_decoder(cfg.MODEL.BACKBONE)
            self.add_local_head(cfg)

    def _build_decoder(self, options: CfgNode) -> PromptDecoder:
        width, num_heads = self.backbone.feat_dim, self.backbone.blocks[0].attn.num_heads
        if width % (2 * num_heads):
            raise UserError(
                f"MODEL.BACKBONE.FEAT_DIM {width} is no multiple of twice MODEL.BACKBONE.NUM_HEADS"
                f" {num_heads}, but SeCap's refinement is half as wide",
                "change one of them, or set MODEL.USE_SECAP to False",
            )
        rows, columns = self.backbone.patch_embed.grid_size
        sizes = (rows * columns, options.PROMPT_LEN, options.PROMPT_DEPTH)
        return PromptDecoder(width, num_heads, *sizes, recalibrates=options.USE_PRM)

    def encode(self, batch: Batch) -> Any:
        """Encode the images (B, 3, H, W) to a `SeCapOutput`; to what the backbone gives without a decoder."""
        encoded = super().encode(batch)
        if not self.has_local:
            return encoded
        local = self.decoder(encoded.features, encoded.patch_tokens)
        return SeCapOutput(encoded.features, encoded.view_features, local)
