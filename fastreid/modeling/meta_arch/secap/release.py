"""The checkpoints of SeCap's authors: their parameter names, in ours."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastreid.modeling.meta_arch.local_feature import NEVER_READ, LocalFeatureRelease, highest_number

_LAYER = r"backbone\.lfrm\.layers\.(\d+)\..+"
_RENAMED = {
    r"backbone\.prompt": "decoder.prompts",
    r"backbone\.out_token": "decoder.out_token",
    r"backbone\.image_pe": "decoder.patch_positions",
    r"backbone\.prm\.(.+)": r"decoder.recalibration.\1",
    r"backbone\.lfrm\.(layers\..+)": r"decoder.refinement.\1",
    r"backbone\.lfrm\.final_attn_token_to_image\.(.+)": r"decoder.refinement.final.\1",
    r"backbone\.lfrm\.norm_final_attn\.(.+)": r"decoder.refinement.norm.\1",
}
_UNUSED = dict.fromkeys((r"backbone\.prm\.attn2\..+", r"backbone\.lfrm\.out_token"), NEVER_READ)


class SeCapRelease(LocalFeatureRelease):
    """Encoder and decoder are parts of one backbone there."""

    def __init__(self) -> None:
        super().__init__("backbone.prompt", _RENAMED, _UNUSED)

    def settings(self, reference: Mapping[str, Tensor], method: str) -> dict[str, Any]:
        """Return the numbers of identities, prompts and blocks of the refinement; see the base class."""
        return super().settings(reference, method) | {
            "MODEL.BACKBONE.PROMPT_LEN": reference["backbone.prompt"].shape[-2],
            "MODEL.BACKBONE.PROMPT_DEPTH": highest_number(_LAYER, reference) + 1,
        }
