"""The checkpoints of SD-ReID's reference release: its parameter names, in ours."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastreid.modeling.meta_arch.release_format import ReleaseFormat, not_theirs
from fastreid.utils.errors import UserError

WHOLE = "convert a checkpoint of Stage 2 as its authors' code wrote it"
STAGE1, STAGE2, AS_RELEASED = "SDReIDStage1", "SDReIDStage2", "SDReIDStage2AsReleased"

_LEARNER = "generator.condition_learner."
_VRD = "generator.view_refined_decoder."
_LAYER = rf"{_LEARNER}transformer.layers.\1."
_BLOCK = r"condition_learner\.trans\.resblocks\.(\d+)\."
_CENTER = r"mm\.view_centers\.(\d+)"
_IN_PROJ = _BLOCK + r"attn\.in_proj_(weight|bias)"
_SECOND_COPY = "inverse_sampling."

# One tensor here for one there; what is packed there is taken apart before.
_RENAMED = {
    r"(backbone\..+)": r"\1",
    r"((?:view_)?heads\.(?:bottleneck\.0\..+|weight))": r"\1",
    r"unet\.model\.(.+)": r"generator.unet.\1",
    r"condition_learner\.learnable_vector": f"{_LEARNER}null_context",
    _BLOCK + r"ln_([12])\.(weight|bias)": _LAYER + r"layer_norm\2.\3",
    _BLOCK + r"attn\.in_([qkv])_(weight|bias)": _LAYER + r"self_attn.\2_proj.\3",
    r"mm\.view_centers": "memory_bank.prototypes",
    _BLOCK + r"attn\.out_proj\.(weight|bias)": _LAYER + r"self_attn.out_proj.\2",
    _BLOCK + r"mlp\.c_fc\.(weight|bias)": _LAYER + r"mlp.fc1.\2",
    _BLOCK + r"mlp\.c_proj\.(weight|bias)": _LAYER + r"mlp.fc2.\2",
} | {
    # 0 to 2 refine the UNet's encoder, 3 to 5 its decoder; the finest level comes first.
    rf"condition_learner\.downsamplers\.{3 * half + level}\.(weight|bias)": rf"{_VRD}{name}.{level}.\1"
    for half, name in enumerate(("encoder", "decoder"))
    for level in range(3)
}


class SDReIDRelease(ReleaseFormat):
    """Both stages; the weights tell which, and the configuration how Stage 2 is to be run."""

    def __init__(self) -> None:
        super().__init__(_RENAMED)

    def settings(self, reference: Mapping[str, Tensor], method: str) -> dict[str, Any]:
        """Return the stage, the numbers of views and identities and the sizes of Stage 2's parts.

        Args:
            method: a Stage 2 that is `SDReIDStage2` is to be run as described; any other as released.

        Raises:
            UserError: if the file lacks what tells them, or its pyramids are not two of three levels with
                the same square kernels.
        """
        views = [name for name in reference if re.fullmatch(_CENTER, name)]
        if "heads.weight" not in reference or not views:
            names = "heads.weight and mm.view_centers.0"
            raise not_theirs(reference, "a checkpoint of the reference release", names)
        settings: dict[str, Any] = {
            "MODEL.META_ARCHITECTURE": STAGE1,
            "MODEL.SDMODEL.VIEW_NUM": len(views),
            "MODEL.HEADS.NUM_CLASSES": len(reference["heads.weight"]),
        }
        if any(name.startswith("unet.model.") for name in reference):
            settings["MODEL.META_ARCHITECTURE"] = STAGE2 if method == STAGE2 else AS_RELEASED
            settings["MODEL.SDMODEL.VRD_CONFIG.KERNEL_SIZES"] = _kernel_sizes(reference)
            blocks = {match[1] for match in (re.match(_BLOCK, name) for name in reference) if match}
            settings["MODEL.SDMODEL.CON_LEARNER_CONFIG.DEPTH"] = len(blocks)
        return settings

    def rearranged(self, reference: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Split attention's packed matrices into query, key and value; join the views' centers as rows."""
        rearranged: dict[str, Tensor] = {}
        for name, value in reference.items():
            if re.fullmatch(_IN_PROJ, name):
                for projection, rows in zip("qkv", value.chunk(3), strict=True):
                    rearranged[name.replace("in_proj_", f"in_{projection}_")] = rows.clone()
            else:
                rearranged[name] = value
        views = sum(bool(re.fullmatch(_CENTER, name)) for name in reference)
        centers = [f"mm.view_centers.{view}" for view in range(views)]
        if all(name in reference for name in centers):
            rows = [rearranged.pop(name).flatten() for name in centers]
            rearranged["mm.view_centers"] = torch.stack(rows)
        return rearranged

    def why_unused(self, name: str, reference: Mapping[str, Tensor]) -> str | None:
        """Drop what stands in the file under ``unet.model`` too."""
        first = reference.get(name.removeprefix(_SECOND_COPY)) if name.startswith(_SECOND_COPY) else None
        is_copy = first is not None and torch.equal(first, reference[name])
        return "the same as unet.model.*" if is_copy else None

    def our_own(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the bank's marks, all set, and a codec that changes nothing."""
        codec = ("generator.codec.mean", "generator.codec.std")
        unchanged = {name: own[name].clone() for name in codec if name in own}
        return unchanged | {"memory_bank.seen": torch.ones_like(own["memory_bank.seen"])}

    def caution(self, method: str) -> str:
        """Say what the described method uses that the release never trained."""
        if method != STAGE2:
            return ""
        return (
            "caution: the release never trained condition_learner.downsamplers.3 to 5, and its condition"
            f" learner attended across the batch; {method} uses both otherwise. With the release's own yaml"
            " the checkpoint is run as it was trained"
        )


def _kernel_sizes(reference: Mapping[str, Tensor]) -> list[int]:
    names = [f"condition_learner.downsamplers.{index}.weight" for index in range(6)]
    absent = [name for name in names if name not in reference]
    if absent:
        problem = f"the file lacks {', '.join(absent)}: the View-Refined Decoder has six convolutions"
        raise UserError(problem, WHOLE)
    shapes = [tuple(reference[name].shape) for name in names]
    kernels = [shape[-1] for shape in shapes]
    if any(len(s) != 4 or s[1] != 1 or s[2] != s[3] for s in shapes) or kernels[:3] != kernels[3:]:
        raise UserError(
            f"condition_learner.downsamplers.* have shapes {shapes}: expected convolutions from 1 channel"
            " with square kernels, 0 to 2 with the same ones as 3 to 5",
            WHOLE,
        )
    return kernels[:3]
