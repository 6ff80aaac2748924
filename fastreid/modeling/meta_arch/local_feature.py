"""VDT with a second, local feature, which SeCap and ViSA share, and their authors' names for its parts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fastreid.config import CfgNode
from fastreid.modeling.heads import build_head
from fastreid.modeling.meta_arch.base import ParameterRules
from fastreid.modeling.meta_arch.release_format import not_theirs
from fastreid.modeling.meta_arch.vdt import VDT, VDTRelease, ViewTokenTransformer
from fastreid.structures import Batch
from fastreid.utils.errors import UserError


class PatchOutput(NamedTuple):
    """The outputs of an encoder for B images with N patches; width D."""

    features: Tensor
    """(B, D): the person's: the class token less the view token, after the final norm of each."""
    view_features: Tensor
    """(B, D): the view's: the view token after the final norm."""
    patch_tokens: Tensor
    """(B, N, D): the patches before the last block, row by row, not normalised."""


class PatchViewTokenTransformer(ViewTokenTransformer):
    """VDT's ViT without a subtraction inside the last block; its patches are those before that block."""

    def forward(self, images: Tensor) -> PatchOutput:
        """Encode (B, 3, H, W) float images, normalised, of the size given at construction."""
        return self.encoded(self.embed(images))

    def encoded(self, tokens: Tensor) -> PatchOutput:
        """Pass the first block's tokens (B, 2 + N, D), class and view token first, through all blocks."""
        tokens = self.decoupled(tokens, self.blocks[:-1])
        person, view = self.norm(self.blocks[-1](tokens)[:, :2]).unbind(dim=1)
        return PatchOutput(person - view, view, tokens[:, 2:])


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
        """Return VDT's losses, and MODEL.LOSSES on the local feature."""
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


_BLOCK = r"backbone\.base\.blocks\.(\d+)\..+"
_LAST_BLOCK = "backbone.b1.0."  # its other copy, among those of backbone.base, is never read
_ENCODER = {
    r"backbone\.base\.(cls_token|view_token|pos_embed|(?:patch_embed|blocks)\..+)": r"backbone.\1",
    r"backbone\.b1\.(blocks\..+)": r"backbone.\1",
    r"backbone\.b1\.1\.(weight|bias)": r"backbone.norm.\1",
    r"(local_heads\.(?:bottleneck\.0\..+|weight))": r"\1",
}
NEVER_READ = "its code never reads it"


class LocalFeatureRelease(VDTRelease):
    """Their encoder is a part of the backbone, and its last block and norm stand apart.

    Args:
        signature: a name that only this method's files have.
        more, unused: as in the base class.
    """

    def __init__(self, signature: str, more: Mapping[str, str], unused: Mapping[str, str]) -> None:
        super().__init__(_ENCODER | dict(more), {r"backbone\.base\.norm\..+": NEVER_READ, **unused})
        self.signature = signature

    def settings(self, reference: Mapping[str, Tensor], method: str) -> dict[str, Any]:
        if self.signature not in reference:
            raise not_theirs(reference, f"a checkpoint of the authors of {method}", self.signature)
        return super().settings(reference, method)

    def rearranged(self, reference: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Give the last block its number, and put the view classifier's rows in our order."""
        numbered = f"backbone.b1.blocks.{highest_number(_BLOCK, reference)}."
        return {
            numbered + name.removeprefix(_LAST_BLOCK) if name.startswith(_LAST_BLOCK) else name: value
            for name, value in super().rearranged(reference).items()
        }

    def why_unused(self, name: str, reference: Mapping[str, Tensor]) -> str | None:
        block = re.fullmatch(_BLOCK, name)
        if block and int(block[1]) == highest_number(_BLOCK, reference):
            return NEVER_READ
        return super().why_unused(name, reference)


def highest_number(pattern: str, names: Iterable[str]) -> int:
    """Return the highest number that the pattern's group finds in the names that match; -1 if none does."""
    matches = (re.fullmatch(pattern, name) for name in names)
    return max((int(match[1]) for match in matches if match), default=-1)
