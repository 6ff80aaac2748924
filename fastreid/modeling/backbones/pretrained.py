"""Reading timm-format ViT weights into the encoder."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn

from fastreid.utils.errors import UserError
from fastreid.utils.weight_files import check_finite, misfit, read_weights, require_file

LARGEST_PATCH = 64  # pixels; resampling takes memory with the fourth power
# What methods add to a ViT stays as initialised, or they set it.
NEW_KEYS = ("view_prompt", "view_token", "local_block.", "local_norm.")
_TIMM_RELEASE = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx"
_DEIT_FILES = "https://dl.fbaipublicfiles.com/deit"
DOWNLOADS = {
    192: f"{_DEIT_FILES}/deit_tiny_patch16_224-a1311bcf.pth",
    384: f"{_DEIT_FILES}/deit_small_patch16_224-cd65a155.pth",
    768: f"{_TIMM_RELEASE}/jx_vit_base_p16_224-80ecf9dd.pth",
    1024: f"{_TIMM_RELEASE}/jx_vit_large_p16_224-4ee7a4dc.pth",
    512: "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    2048: "https://download.pytorch.org/models/resnet50-19c8e357.pth",
}


class PretrainedReport(NamedTuple):
    """The keys of a load, sorted."""

    loaded: list[str]
    resampled: list[str]
    """Loaded keys that were interpolated to this encoder's patch grid or patch size."""
    missing: list[str]
    """Keys of the encoder that the file lacks; they keep their initial values."""
    left_out: list[str]
    """Keys of the file that the encoder has no place for, such as the classifier's."""

    def summary(self) -> str:
        """One line."""
        parts = [f"{len(self.loaded)} tensors loaded"]
        for meaning, keys in (
            ("resampled", self.resampled),
            ("left as initialised", self.missing),
            ("left out", self.left_out),
        ):
            if keys:
                more = f" and {len(keys) - 6} more" if len(keys) > 6 else ""
                parts.append(f"{meaning}: {', '.join(keys[:6])}{more}")
        return "; ".join(parts)


def fit_pretrained_vit(backbone: nn.Module, path: str | Path) -> tuple[dict[str, Tensor], PretrainedReport]:
    """Return what of a timm-format ViT can be loaded into `backbone`, and its report; load nothing.

    The file is a ``.pth`` (a plain dict of tensors, or one under ``model`` or ``state_dict``) or a
    ``.safetensors``. Classifier keys are left out, position embeddings and the patch projection are
    resampled to the encoder's grid and patch size. Of `backbone` only names and shapes are read: it may be
    on the ``meta`` device.

    Raises:
        UserError: for a missing or unreadable file, or one whose width, depth or stem is another.
    """
    path = require_pretrained_weights(path, backbone.feat_dim)
    state, left_out = read_pretrained(path, backbone)
    own = backbone.state_dict()
    resampled = _resample(state, backbone, path)
    _check_fit(path, state, own, left_out)
    return state, PretrainedReport(sorted(state), resampled, sorted(own.keys() - state.keys()), left_out)


def require_pretrained_weights(path: str | Path, width: int) -> Path:
    """`path`, if there is a file of its own content, see `require_file`.

    Raises:
        UserError: if there is none; it says which file to download for an encoder of that width.
    """
    path = Path(path)
    wanted = DOWNLOADS.get(width, f"timm-format weights of width {width}")
    require_file(
        path,
        "pretrained weights",
        f"download {wanted} and put it there, or name its place with"
        " MODEL.BACKBONE.PRETRAIN_PATH (MODEL.BACKBONE.PRETRAIN False starts from random weights)",
    )
    return path


def read_pretrained(path: Path, backbone: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """Return the file's tensors that `backbone` has by the same names, as its dtypes, and the other names.

    Shapes may differ. The file is a ``.safetensors`` or a torch file, see `read_weights`.

    Raises:
        UserError: if it cannot be read, or the numbers of a tensor cannot be weights here.
    """
    source = f"pretrained weights {path}"
    given, own = read_weights(path, "pretrained weights", "download it again"), backbone.state_dict()
    state = {name: given[name] for name in own if name in given}
    for name, value in state.items():
        if odd := misfit(value, own[name], reshaped=True):
            raise UserError(
                f"{source}: {name} is {odd}", "name another file with MODEL.BACKBONE.PRETRAIN_PATH"
            )
    check_finite(state, source)
    state = {name: value.detach().to(own[name].dtype) for name, value in state.items()}
    return state, sorted(given.keys() - own.keys())


def _resample(state: dict[str, Tensor], backbone: nn.Module, path: Path) -> list[str]:
    """Bring position embeddings and patch projection in `state` to the encoder's sizes; the changed keys.

    timm's models are square, so the embeddings of a square number of patches are taken for a square grid.
    """
    resampled = []
    given = embeddings = state.get("pos_embed")
    grid = backbone.patch_embed.grid_size
    if embeddings is not None and embeddings.ndim == 3 and embeddings.shape[::2] == (1, backbone.feat_dim):
        patches = embeddings.shape[1] - 1
        side = math.isqrt(max(patches, 0))
        if side * side == patches > 0 and (side, side) != grid:
            state["pos_embed"] = resample_abs_pos_embed(
                embeddings, new_size=list(grid), interpolation="bilinear", antialias=False
            )
            resampled.append("pos_embed")
        elif (side * side != patches or not patches) and patches != grid[0] * grid[1]:
            raise UserError(
                f"ViT weights {path}: pos_embed has {patches} patches, which is neither a square grid nor the"
                f" {grid[0]}x{grid[1]} of this encoder",
                "use another file",
            )
    if given is not None and given.ndim == 3 and backbone.extra_tokens:
        # As in VDT's code: further tokens begin with the positions of the file's first patches.
        extra, fitted = given[:, 1 : 1 + backbone.extra_tokens], state["pos_embed"]
        state["pos_embed"] = torch.cat([fitted[:, :1], extra, fitted[:, 1:]], dim=1)
    key = "patch_embed.proj.weight"
    kernel, own_kernel = state.get(key), backbone.patch_embed.proj.weight
    if kernel is not None and kernel.shape != own_kernel.shape and _is_patch_kernel(kernel, own_kernel):
        state[key] = resample_patch_embed(kernel, list(own_kernel.shape[-2:]))
        resampled.append(key)
    return sorted(resampled)


def _is_patch_kernel(kernel: Tensor, own: Tensor) -> bool:
    """Tell whether it projects patches of a size that is one to as many numbers as ours."""
    same = kernel.ndim == 4 and kernel.shape[:2] == own.shape[:2]
    return same and all(1 <= size <= LARGEST_PATCH for size in kernel.shape[2:])


def _check_fit(path: Path, state: dict[str, Tensor], own: dict[str, Tensor], left_out: list[str]) -> None:
    def refused(problem: str) -> UserError:
        return UserError(
            f"ViT weights {path} do not fit the encoder: {problem}",
            "check MODEL.BACKBONE.DEPTH, FEAT_DIM and"
            " CONV_STEM, or name another file with MODEL.BACKBONE.PRETRAIN_PATH",
        )

    for key, value in own.items():
        if key in state and (odd := misfit(state[key], value)):
            raise refused(f"{key} is {odd}")
        if key not in state and not key.startswith(NEW_KEYS):
            raise refused(f"{key} of shape {tuple(value.shape)} is missing")
    for key in left_out:
        if key.startswith("blocks."):
            raise refused(f"the encoder has no {key}")
