"""The checkpoints of SeCap's authors: their parameter names, in ours."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastreid.modeling.meta_arch.release_format import not_theirs
from fastreid.modeling.meta_arch.vdt import VDTRelease

_BLOCK = r"backbone\.base\.blocks\.(\d+)\..+"
_LAYER = r"backbone\.lfrm\.layers\.(\d+)\..+"
_LAST_BLOCK = "backbone.b1.0."  # a copy of the last one of backbone.base, which runs in its place
_RENAMED = {
    r"backbone\.base\.(cls_token|view_token|pos_embed|(?:patch_embed|blocks)\..+)": r"backbone.\1",
    r"backbone\.b1\.(blocks\..+)": r"backbone.\1",
    r"backbone\.b1\.1\.(weight|bias)": r"backbone.norm.\1",
    r"backbone\.prompt": "decoder.prompts",
    r"backbone\.out_token": "decoder.out_token",
    r"backbone\.image_pe": "decoder.patch_positions",
    r"backbone\.prm\.(.+)": r"decoder.recalibration.\1",
    r"backbone\.lfrm\.(layers\..+)": r"decoder.refinement.\1",
    r"backbone\.lfrm\.final_attn_token_to_image\.(.+)": r"decoder.refinement.final.\1",
    r"backbone\.lfrm\.norm_final_attn\.(.+)": r"decoder.refinement.norm.\1",
    r"(local_heads\.(?:bottleneck\.0\..+|weight))": r"\1",
}
_NEVER_READ = "its code never reads it"
_UNUSED = dict.fromkeys(
    (r"backbone\.base\.norm\..+", r"backbone\.prm\.attn2\..+", r"backbone\.lfrm\.out_token"), _NEVER_READ
)


class SeCapRelease(VDTRelease):
    """Encoder and decoder are parts of one backbone there, and its last block stands apart."""

    def __init__(self) -> None:
        super().__init__(_RENAMED, _UNUSED)

    def settings(self, reference: Mapping[str, Tensor], method: str) -> dict[str, Any]:
        """Return the numbers of identities, prompts and blocks of the refinement.

        Raises:
            UserError: if it is no such file.
        """
        if "backbone.prompt" not in reference:
            raise not_theirs(reference, f"a checkpoint of the authors of {method}", "backbone.prompt")
        return super().settings(reference, method) | {
            "MODEL.BACKBONE.PROMPT_LEN": reference["backbone.prompt"].shape[1],
            "MODEL.BACKBONE.PROMPT_DEPTH": _last(_LAYER, reference) + 1,
        }

    def rearranged(self, reference: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Give the last block its number, and put the view classifier's rows in our order."""
        numbered = f"backbone.b1.blocks.{_last(_BLOCK, reference)}."
        return {
            numbered + name.removeprefix(_LAST_BLOCK) if name.startswith(_LAST_BLOCK) else name: value
            for name, value in super().rearranged(reference).items()
        }

    def why_unused(self, name: str, reference: Mapping[str, Tensor]) -> str | None:
        block = re.fullmatch(_BLOCK, name)
        if block and int(block[1]) == _last(_BLOCK, reference):
            return _NEVER_READ
        return super().why_unused(name, reference)


def _last(pattern: str, reference: Mapping[str, Tensor]) -> int:
    """Return the highest number among the names that match; -1 if none does."""
    matches = (re.fullmatch(pattern, name) for name in reference)
    return max((int(match[1]) for match in matches if match), default=-1)
