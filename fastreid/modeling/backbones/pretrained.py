"""Reading timm-format ViT weights into the encoder."""

import math
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn

from fastreid.utils.errors import UserError

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
    state = read_tensors(path)
    own = backbone.state_dict()
    left_out = sorted(state.keys() - own.keys())
    state = {key: value for key, value in state.items() if key in own}
    resampled = _resample(state, backbone, path)
    _check_fit(path, state, own, left_out)
    return state, PretrainedReport(sorted(state), resampled, sorted(own.keys() - state.keys()), left_out)


def require_pretrained_weights(path: str | Path, width: int) -> Path:
    """`path`, if there is a file.

    Raises:
        UserError: if there is none; it says which file to download for an encoder of that width.
    """
    path = Path(path)
    if not path.is_file():
        wanted = DOWNLOADS.get(width, f"timm-format weights of width {width}")
        raise UserError(
            f"pretrained weights not found: {path}",
            f"download {wanted} and put it there, or name its place with"
            " MODEL.BACKBONE.PRETRAIN_PATH (MODEL.BACKBONE.PRETRAIN False starts from random weights)",
        )
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` or ``.pth``: a dict of them, or one under model or state_dict.

    Raises:
        UserError: if it cannot be read or holds none.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(
            f"pretrained weights {path} cannot be read as {path.suffix or 'a checkpoint'}"
            f" ({type(error).__name__}); expected a file of tensors as timm publishes them",
            "download it again",
        ) from error
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {}
    if isinstance(content, dict):
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(
            f"pretrained weights {path}: expected a dict of tensors, found a {type(content).__name__}"
        )
    return tensors


def _resample(state: dict[str, Tensor], backbone: nn.Module, path: Path) -> list[str]:
    """Bring position embeddings and patch projection in `state` to the encoder's sizes; the changed keys.

    timm's models are square, so the embeddings of a square number of patches are taken for a square grid.
    """
    resampled = []
    given = embeddings = state.get("pos_embed")
    grid = backbone.patch_embed.grid_size
    if embeddings is not None and embeddings.ndim == 3:
        patches = embeddings.shape[1] - 1
        side = math.isqrt(max(patches, 0))
        if side * side == patches and (side, side) != grid:
            state["pos_embed"] = resample_abs_pos_embed(
                embeddings, new_size=list(grid), interpolation="bilinear", antialias=False
            )
            resampled.append("pos_embed")
        elif side * side != patches and patches != grid[0] * grid[1]:
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
    if kernel is not None and kernel.shape[:2] == own_kernel.shape[:2] and kernel.shape != own_kernel.shape:
        state[key] = resample_patch_embed(kernel, list(own_kernel.shape[-2:]))
        resampled.append(key)
    return sorted(resampled)


def _check_fit(path: Path, state: dict[str, Tensor], own: dict[str, Tensor], left_out: list[str]) -> None:
    def misfit(problem: str) -> UserError:
        return UserError(
            f"ViT weights {path} do not fit the encoder: {problem}",
            "check MODEL.BACKBONE.DEPTH, FEAT_DIM and"
            " CONV_STEM, or name another file with MODEL.BACKBONE.PRETRAIN_PATH",
        )

    for key, value in own.items():
        if key in state and state[key].shape != value.shape:
            raise misfit(f"{key} has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}")
        if key not in state and not key.startswith(NEW_KEYS):
            raise misfit(f"{key} of shape {tuple(value.shape)} is missing")
    for key in left_out:
        if key.startswith("blocks."):
            raise misfit(f"the encoder has no {key}")
