"""TransReID: side information of camera and view, and features of shuffled groups of patches.

He et al., "TransReID: Transformer-based Object Re-Identification", ICCV 2021, arXiv 2102.04378.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastreid.config import NOT_NEGATIVE, POSITIVE, CfgNode, Changes, Key
from fastreid.data import TrainSet
from fastreid.modeling.backbones import BACKBONE_REGISTRY, VisionTransformer, build_vit
from fastreid.modeling.backbones.pretrained import PretrainedReport
from fastreid.modeling.heads import build_head
from fastreid.modeling.meta_arch.base import BuildLoader, ParameterRules
from fastreid.modeling.meta_arch.baselines import Baseline
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from fastreid.structures import Batch, DataNames
from fastreid.utils.errors import UserError

BOTH = Changes.BOTH
KEYS = {
    "SIE_CAMERA": Key(True, "side information of the camera", None, BOTH),
    "SIE_VIEW": Key(False, "side information of the view", None, BOTH),
    "SIE_COE": Key(3.0, "weight of the side information", NOT_NEGATIVE, BOTH),
    "JPM": Key(True, "the jigsaw patch module", None, BOTH),
    "SHIFT_NUM": Key(5, "patches that the module moves to the end, and one", POSITIVE, BOTH),
    "SHUFFLE_GROUP": Key(2, "groups that it takes the patches from in turn", POSITIVE, BOTH),
    "DIVIDE_LENGTH": Key(4, "its groups of patches, with a feature each", POSITIVE, BOTH),
    "RE_ARRANGE": Key(True, "move and shuffle patches before they are divided", None, BOTH),
}


class TransReIDOutput(NamedTuple):
    """The outputs for B images; width D, K groups of patches or none."""

    features: Tensor
    """(B, D): the class token after the final norm."""
    local_features: Tensor
    """(B, K, D): that of each group of patches, by the module's own block and norm."""


class SideInformation(nn.Module):
    """A learned vector for each camera, each view, or each pair of them (TransReID, sec. 3.3).

    Args:
        cameras, views: how many there are; 1: they play no part.
        width: D.
        weight: of the vectors.
    """

    def __init__(self, cameras: int, views: int, width: int, weight: float) -> None:
        super().__init__()
        self.cameras, self.views, self.weight = cameras, views, weight
        self.vectors = nn.Parameter(torch.empty(cameras * views, width))
        nn.init.trunc_normal_(self.vectors, std=0.02)

    def forward(self, cameras: Tensor | None, views: Tensor | None) -> Tensor:
        """Map int64 ids (B,), or None where they play no part, to (B, 1, D); to zeros what is unknown."""
        number, known = self.numbers(cameras, views)
        vectors = self.vectors[torch.where(known, number, 0)]
        return self.weight * (vectors * known[:, None])[:, None]

    def numbers(self, cameras: Tensor | None, views: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the rows of `vectors` for ids (B,), and where there is one (B,) bool."""
        number, known = 0, True
        for ids, count in ((cameras, self.cameras), (views, self.views)):
            if ids is not None:
                number, known = number * count + ids, known & (ids >= 0) & (ids < count)
        return number, known

    @torch.no_grad()
    def forget_all_but(self, cameras: Tensor | None, views: Tensor | None) -> None:
        """Set the vectors of ids that do not occur among these (N,) to zero; they get no gradient later."""
        occurring = torch.zeros(len(self.vectors), dtype=torch.bool)
        occurring[self.numbers(cameras, views)[0]] = True
        self.vectors[~occurring.to(self.vectors.device)] = 0


class JigsawTransformer(VisionTransformer):
    """A ViT with side information on its tokens and a jigsaw patch module in the place of its last block.

    Args:
        groups: K of the jigsaw patch module; 0: none.
        shift, shuffle_groups, rearranges: as in `rearranged`.
        kwargs: as in `VisionTransformer`.
    """

    def __init__(
        self, *args: Any, groups: int, shift: int, shuffle_groups: int, rearranges: bool, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.groups, self.shift = groups, shift
        self.shuffle_groups, self.rearranges = shuffle_groups, rearranges
        if groups:
            self.local_block = copy.deepcopy(self.blocks[-1])
            self.local_norm = copy.deepcopy(self.norm)

    def load_pretrained(self, path: str | Path) -> PretrainedReport:
        """Load timm-format ViT weights; the module starts from the last block's."""
        report = super().load_pretrained(path)
        if self.groups:
            self.local_block.load_state_dict(self.blocks[-1].state_dict())
            self.local_norm.load_state_dict(self.norm.state_dict())
        return report

    def forward(self, images: Tensor, side: Tensor | None = None) -> TransReIDOutput:
        """Encode (B, 3, H, W) float images, normalised; `side` (B, 1, D) is added to all tokens."""
        tokens = self.embed(images)
        if side is not None:
            tokens = tokens + side
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        features = self.norm(self.blocks[-1](tokens))[:, 0]
        return TransReIDOutput(features, self._local(tokens))

    def _local(self, tokens: Tensor) -> Tensor:
        if not self.groups:
            return tokens[:, :0]
        patches = tokens[:, 1:]
        length = patches.shape[1] // self.groups
        if self.rearranges:
            patches = rearranged(patches, self.shift, self.shuffle_groups)
        groups = patches[:, : length * self.groups].unflatten(1, (self.groups, length)).flatten(0, 1)
        classes = tokens[:, :1].repeat_interleave(self.groups, dim=0)
        encoded = self.local_block(torch.cat([classes, groups], dim=1))[:, 0]
        return self.local_norm(encoded).unflatten(0, (-1, self.groups))


def rearranged(patches: Tensor, shift: int, groups: int) -> Tensor:
    """Move the first `shift` - 1 patches (B, N, D) to the end, then take one of each group in turn.

    The groups are runs of equal length; where N is no multiple, the last patch but one stands there twice.
    """
    moved = torch.cat([patches[:, shift - 1 :], patches[:, : shift - 1]], dim=1)
    while moved.shape[1] % groups:
        moved = torch.cat([moved, moved[:, -2:-1]], dim=1)
    return moved.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


@BACKBONE_REGISTRY.register()
def build_transreid_backbone(cfg: CfgNode) -> JigsawTransformer:
    """Return TransReID's encoder, randomly initialised, from ``MODEL.BACKBONE`` and ``MODEL.TRANSREID``.

    Raises:
        UserError: for another method, sizes that contradict each other, or more groups than patches.
    """
    if "TRANSREID" not in cfg.MODEL:
        raise UserError(
            "MODEL.BACKBONE.NAME build_transreid_backbone is TransReID's alone", "name another backbone"
        )
    options = cfg.MODEL.TRANSREID
    encoder = build_vit(
        cfg,
        JigsawTransformer,
        groups=options.DIVIDE_LENGTH if options.JPM else 0,
        shift=options.SHIFT_NUM,
        shuffle_groups=options.SHUFFLE_GROUP,
        rearranges=options.RE_ARRANGE,
    )
    rows, columns = encoder.patch_embed.grid_size
    if encoder.groups and rows * columns < max(encoder.groups, 2):
        raise UserError(
            f"MODEL.TRANSREID.DIVIDE_LENGTH is {encoder.groups}, but there are {rows * columns} patches",
            "use fewer groups",
        )
    return encoder


@META_ARCH_REGISTRY.register()
class TransReID(Baseline):
    """Half of each loss is on the class token, half on the groups' features, which have heads of their own.

    The retrieval feature joins the person's with those of the groups, each divided by their number. Without
    any part of ``MODEL.TRANSREID`` it is `ViTBaseline`.
    """

    backbone_names = ("build_transreid_backbone",)
    test_labels = frozenset({"camids", "viewids"})

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        cfg.declare({"MODEL": {"TRANSREID": KEYS}})

    def __init__(self, cfg: CfgNode, names: DataNames = DataNames()) -> None:
        super().__init__(cfg, names)
        options, width, groups = cfg.MODEL.TRANSREID, self.backbone.feat_dim, self.backbone.groups
        read = {"camids": options.SIE_CAMERA, "viewids": options.SIE_VIEW}
        self.test_labels = frozenset(name for name, is_read in read.items() if is_read)
        if self.test_labels:
            # Where nobody knows, to count what the model costs, two do as well as any.
            cameras = max(names.cameras, default=1) + 1 if options.SIE_CAMERA else 1
            views = (len(names.views) or 2) if options.SIE_VIEW else 1
            self.side_information = SideInformation(cameras, views, width, options.SIE_COE)
        self.local_heads = nn.ModuleList(
            build_head(cfg, width, cfg.MODEL.HEADS.NUM_CLASSES) for _ in range(groups)
        )
        if not self.identity_losses.need_classifier:
            for head in self.local_heads:
                head.freeze_classifier()

    def on_train_start(self, train_set: TrainSet, build_loader: BuildLoader) -> None:
        """Leave cameras and views without a training image without side information."""
        if self.test_labels:
            ids = {
                "camids": torch.tensor([sample.camid for sample in train_set.samples]),
                "viewids": torch.tensor([sample.viewid for sample in train_set.samples]),
            }
            self.side_information.forget_all_but(*self._read(ids.__getitem__))

    def encode(self, batch: Batch) -> TransReIDOutput:
        """Encode the images (B, 3, H, W) with what is read of them."""
        pixels = self.pixels(batch)
        if not self.test_labels:
            return self.backbone(pixels)
        side = self.side_information(*self._read(partial(self.labels, batch)))
        return self.backbone(pixels, side)

    def _read(self, ids: Callable[[str], Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Return the ids of cameras and of views, by their names; None for what plays no part."""
        cameras, views = (ids(name) if name in self.test_labels else None for name in ("camids", "viewids"))
        return cameras, views

    def losses(self, encoded: TransReIDOutput, batch: Batch) -> dict[str, Tensor]:
        """MODEL.LOSSES: half on the person's feature, half on the mean over the groups'."""
        targets = self.labels(batch, "targets")
        local = [
            self.identity_losses(head(features, targets), targets)
            for head, features in zip(self.local_heads, encoded.local_features.unbind(1), strict=True)
        ]
        person = super().losses(encoded, batch)  # last, so that its accuracy is the one that is logged
        if not local:
            return person
        return {
            name: (loss + sum(losses[name] for losses in local) / len(local)) / 2
            for name, loss in person.items()
        }

    def features(self, encoded: TransReIDOutput, batch: Batch, parts: Sequence[str] | None = None) -> Tensor:
        """Join the chosen parts (B, D), each after the neck of its head."""
        groups = len(self.local_heads)
        numbers = {name: number for number, name in enumerate(self.feature_parts())}
        joined = []
        for name in numbers if parts is None else parts:
            if numbers[name]:
                group = numbers[name] - 1
                joined.append(self.local_heads[group](encoded.local_features[:, group]) / groups)
            else:
                joined.append(self.heads(encoded.features))
        return torch.cat(joined, dim=1).float()

    def feature_parts(self) -> dict[str, int]:
        groups = {f"group {number}": head.embedding_dim for number, head in enumerate(self.local_heads, 1)}
        return super().feature_parts() | groups

    def parameter_rules(self) -> ParameterRules:
        classifiers = tuple(f"local_heads.{number}.weight" for number in range(len(self.local_heads)))
        return (
            super()
            .parameter_rules()
            ._replace(heads=("heads.", "local_heads."), training_only=("heads.weight", *classifiers))
        )
