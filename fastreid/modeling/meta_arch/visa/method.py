"""ViSA as a method: VDT with a local feature."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.local_feature import LocalFeatureVDT, PatchOutput
from fastreid.modeling.meta_arch.visa.config import KEYS, OWN_BACKBONE, check_rules
from fastreid.modeling.meta_arch.visa.experts import ExpertMixture, ViewExperts
from fastreid.modeling.meta_arch.visa.regions import Fusion, RegionGraph
from fastreid.modeling.meta_arch.visa.release import ViSARelease
from fastreid.structures import Batch, DataNames
from fastreid.utils.errors import UserError


class LocalOutput(NamedTuple):
    """The local feature of B images; width D."""

    features: Tensor
    """(B, D)."""
    imbalance: Tensor
    """A scalar: that of the shared experts and that of the views' own, summed."""


class LocalBranch(nn.Module):
    """The local feature: queries of what views share and of what is each view's own, each with its regions.

    Shared experts read the person's feature, a view's experts the view's; the graphs of either take the
    patches that are most similar to what their experts read.

    Args:
        num_views: V.
        graph_top_k: patches in a graph.
        sizes: as in `ExpertMixture`.
    """

    def __init__(self, num_views: int, graph_top_k: int, **sizes: int) -> None:
        super().__init__()
        width = sizes["width"]
        self.shared_experts, self.view_experts = ExpertMixture(**sizes), ViewExperts(num_views, **sizes)
        self.shared_graph, self.view_graph = RegionGraph(width, graph_top_k), RegionGraph(width, graph_top_k)
        self.fusion = Fusion(width, sizes["num_heads"])

    def forward(self, encoded: PatchOutput, views: Tensor) -> LocalOutput:
        """Map what the encoder gives of images of the views (B,) int64, less than V."""
        person, view, patches = encoded
        shared = self.shared_experts(person, torch.ones_like(views, dtype=torch.bool))
        own = self.view_experts(view, views)
        joined = [
            self.shared_graph(shared.queries, person, patches),
            self.view_graph(own.queries, view, patches),
        ]
        return LocalOutput(self.fusion(torch.cat(joined, dim=1)), shared.imbalance + own.imbalance)


class ViSAOutput(NamedTuple):
    """The outputs for B images; width D."""

    features: Tensor
    """(B, D): the person's, as in VDT."""
    view_features: Tensor
    """(B, D): the view's, as in VDT."""
    local_features: Tensor
    """(B, D)."""
    imbalance: Tensor
    """A scalar: how unevenly the experts are used, see `LocalOutput`."""


@META_ARCH_REGISTRY.register()
class ViSA(LocalFeatureVDT):
    """VDT with a view token for each view, and a local feature of semantic queries and their regions."""

    backbone_names = (OWN_BACKBONE, "build_plain_vit_backbone")
    local_switch = "USE_VISA"
    test_labels = frozenset({"viewids"})
    release = ViSARelease()

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        super().add_config(cfg)
        cfg.declare({"MODEL": KEYS})

    @classmethod
    def check_config(cls, cfg: CfgNode, training: bool) -> None:
        super().check_config(cfg, training)
        check_rules(cfg)

    @classmethod
    def fit_to_data(cls, cfg: CfgNode, num_classes: int, views: Sequence[str]) -> None:
        super().fit_to_data(cfg, num_classes, views)
        options = cfg.MODEL.BACKBONE
        if views and options.VIEW_NUM > len(views):
            raise UserError(
                f"MODEL.BACKBONE.VIEW_NUM is {options.VIEW_NUM}, but the training data has {len(views)} views"
                f" ({', '.join(views)})",
                "set it to 0, which means as many as there are",
            )
        options.VIEW_NUM = options.VIEW_NUM or len(views)

    @classmethod
    def fit_to_weights(cls, cfg: CfgNode, state: dict[str, Tensor]) -> None:
        if not cfg.MODEL.BACKBONE.VIEW_NUM and "backbone.view_token" in state:
            cfg.MODEL.BACKBONE.VIEW_NUM = len(state["backbone.view_token"])

    def __init__(self, cfg: CfgNode, names: DataNames = DataNames()) -> None:
        super().__init__(cfg, names)
        options = cfg.MODEL.BACKBONE
        self.has_views = options.NAME == OWN_BACKBONE
        self.balance = cfg.MODEL.LOSSES.BALANCE
        if not self.has_views:
            self.test_labels = frozenset()
        if cfg.MODEL.USE_VISA:
            self.local_branch = self._build_local_branch(options)
            self.add_local_head(cfg)

    def _build_local_branch(self, options: CfgNode) -> LocalBranch:
        rows, columns = self.backbone.patch_embed.grid_size
        patches = rows * columns
        if options.GRAPH_TOP_K > patches:
            raise UserError(
                f"MODEL.BACKBONE.GRAPH_TOP_K is {options.GRAPH_TOP_K}, but there are {patches} patches",
                f"use at most {patches}",
            )
        return LocalBranch(
            self.num_views(),
            options.GRAPH_TOP_K,
            width=self.backbone.feat_dim,
            num_heads=self.backbone.blocks[0].attn.num_heads,
            length=options.PROMPT_LEN,
            count=options.EXPERTS,
            top_k=options.TOP_K,
        )

    def num_views(self) -> int:
        return self.backbone.num_views

    def views(self, batch: Batch) -> Tensor:
        """Return the images' views, int64 (B,); those after the last one that is told apart count as it."""
        return super().views(batch).clamp(max=self.num_views() - 1)

    def encode(self, batch: Batch) -> tuple:
        """Encode the images (B, 3, H, W), each by its view, to what the parts that are on give."""
        if not self.has_views:
            return super().encode(batch)
        views = self.views(batch)
        encoded = self.backbone(self.pixels(batch), views)
        if not self.has_local:
            return encoded
        return ViSAOutput(encoded.features, encoded.view_features, *self.local_branch(encoded, views))

    def losses(self, encoded: ViSAOutput, batch: Batch) -> dict[str, Tensor]:
        """Return VDT's losses, MODEL.LOSSES on the local feature, and how unevenly the experts are used."""
        losses = super().losses(encoded, batch)
        if self.has_local:
            losses["loss_balance"] = self.balance * encoded.imbalance
        return losses
