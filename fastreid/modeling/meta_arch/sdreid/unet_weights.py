"""The weights in a diffusers UNet folder: compared with a UNet's, and read into it."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from fastreid.utils.errors import UserError
from fastreid.utils.weight_files import check_finite, misfit, read_weights, require_file

GUIDE = "see pretrained/README.md"
UNET_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
AGAIN = f"download it again, {GUIDE}"


def unet_weights_file(folder: str | Path) -> Path:
    """Return the file of weights in a diffusers UNet folder.

    Raises:
        UserError: if there is none, or something else in its place.
    """
    paths = [Path(folder) / name for name in UNET_WEIGHTS]
    path = next((path for path in paths if os.path.lexists(path)), paths[0])
    require_file(path, "UNet weights", AGAIN)
    return path


def check_unet_weights(unet: nn.Module, folder: str) -> tuple[Path, dict[str, Tensor]]:
    """Return the folder's file of weights and its tensors, if all those of `unet` can take their numbers.

    Raises:
        UserError: if there is no file, it does not fit, or has a number that is not finite.
    """
    path = unet_weights_file(folder)
    given, own = read_weights(path, "UNet weights", AGAIN), unet.state_dict()
    missing = [name for name in own if name not in given]
    other = [name for name in own if name in given and misfit(given[name], own[name])]
    if missing or other:
        first = (
            f"{other[0]} is {misfit(given[other[0]], own[other[0]])}" if other else f"{missing[0]} is missing"
        )
        raise UserError(
            f"UNet weights {path} do not fit their config.json: {len(missing)} of {len(own)} tensors are"
            f" missing, {len(other)} have another shape or type ({first})",
            f"download both again, {GUIDE}",
        )
    fitting = {name: given[name] for name in own}
    check_finite(fitting, f"UNet weights {path}")
    return path, fitting


@torch.no_grad()
def load_unet_weights(unet: nn.Module, folder: str) -> Path:
    """Copy the folder's weights into `unet` from the mapped file, so that they are never in memory twice.

    Returns:
        The file.

    Raises:
        UserError: as `check_unet_weights`; `unet` is unchanged then.
    """
    path, state = check_unet_weights(unet, folder)
    for name, value in unet.state_dict().items():
        value.copy_(state[name])
    return path
