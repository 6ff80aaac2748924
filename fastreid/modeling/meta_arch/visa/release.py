"""The checkpoints of ViSA's authors."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastreid.modeling.meta_arch.local_feature import NEVER_READ, LocalFeatureRelease

_EXPERT = r"_experts\.(\d+)\."
_GROUPS = {"share": "shared_experts", "sky": "view_experts.views.0", "ground": "view_experts.views.1"}
_VIEW_TOKENS = ["backbone.base.view_token_sky", "backbone.base.view_token_ground"]
_GRAPH = "backbone.share_gcn.gcn_weights"

_RENAMED = {
    r"backbone\.norm_share\.(.+)": r"local_branch.shared_graph.norm.\1",
    r"backbone\.norm_view\.(.+)": r"local_branch.view_graph.norm.\1",
    r"backbone\.(shared|view)_graph": r"local_branch.\1_graph.convolution.weight",
    r"backbone\.out_token": "local_branch.fusion.token",
    r"backbone\.final_attn_token_to_image\.((?:attn|mlp)\..+)": r"local_branch.fusion.\1",
    r"backbone\.final_attn_token_to_image\.norm2\.(.+)": r"local_branch.fusion.norm1.\1",
    r"backbone\.final_attn_token_to_image\.norm3\.(.+)": r"local_branch.fusion.norm2.\1",
}
for _theirs, _ours in _GROUPS.items():
    _names, _own = rf"backbone\.{_theirs}", rf"local_branch.{_ours}."
    _RENAMED |= {
        rf"{_names}_router\.gate\.(.+)": rf"{_own}gate.\1",
        rf"{_names}{_EXPERT}prompt": rf"{_own}experts.\1.prompt",
        rf"{_names}{_EXPERT}prm\.cross_attn\.v_proj\.(.+)": rf"{_own}experts.\1.value.\2",
        rf"{_names}{_EXPERT}prm\.cross_attn\.out_proj\.(.+)": rf"{_own}experts.\1.projection.\2",
        rf"{_names}{_EXPERT}prm\.((?:norm\d|attn|mlp)\..+)": rf"{_own}experts.\1.\2",
    }

_UNUSED = {
    rf"backbone\.\w+{_EXPERT}prm\.cross_attn\.[qk]_proj\..+": "attention to one token is that token's value",
    r"backbone\.view_gcn\..+": "its code joins both branches by share_gcn",
    r"backbone\.image_pe": NEVER_READ,
}


class ViSARelease(LocalFeatureRelease):
    """Their view tokens stand apart; their one graph convolution becomes that of each branch."""

    views = ("aerial", "ground")

    def __init__(self) -> None:
        super().__init__("backbone.share_router.gate.weight", _RENAMED, _UNUSED)

    def settings(self, reference: Mapping[str, Tensor], method: str) -> dict[str, Any]:
        """Return the numbers of identities, views, experts and queries; see the base class."""
        settings: dict[str, Any] = super().settings(reference, method) | {"MODEL.BACKBONE.VIEW_NUM": 2}
        one = re.compile(r"backbone\.share_experts\.\d+\.prompt")
        prompts = [value for name, value in reference.items() if one.fullmatch(name)]
        if prompts:
            settings["MODEL.BACKBONE.EXPERTS"] = len(prompts)
            settings["MODEL.BACKBONE.PROMPT_LEN"] = prompts[0].shape[-2]
        return settings

    def rearranged(self, reference: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Join the view tokens as rows, and give each branch the convolution; see the base class."""
        rearranged = dict(super().rearranged(reference))
        if all(name in rearranged for name in _VIEW_TOKENS):
            rearranged["backbone.base.view_token"] = torch.cat([rearranged.pop(n) for n in _VIEW_TOKENS])
        if _GRAPH in rearranged:
            weight = rearranged.pop(_GRAPH).T.contiguous()  # theirs stands behind the nodes
            rearranged |= {f"backbone.{branch}_graph": weight.clone() for branch in ("shared", "view")}
        return rearranged
