"""The weights in a diffusers UNet folder: checked by their shapes, and read into a UNet."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from fastreid.utils.errors import UserError

GUIDE = "see pretrained/README.md"
UNET_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
Shapes = dict[str, tuple[int, ...]]
UNREADABLE = (SafetensorError, UnpicklingError, OSError, RuntimeError, EOFError, AttributeError, ValueError)


def unet_weights_file(folder: str | Path) -> Path:
    """Return the file of weights in a diffusers UNet folder.

    Raises:
        UserError: if there is none.
    """
    paths = [Path(folder) / name for name in UNET_WEIGHTS]
    for path in paths:
        if path.is_file():
            return path
    raise UserError(f"UNet weights not found: {paths[0]}", GUIDE)


def tensor_shapes(path: Path) -> Shapes:
    """Return name -> shape of a ``.safetensors``, from its header alone, or of a torch file.

    Raises:
        UserError: if it cannot be read.
    """
    with _readable(path):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        state = torch.load(path, map_location="meta", weights_only=True)
        return {name: tuple(value.shape) for name, value in state.items()}


def check_unet_weights(unet: nn.Module, folder: str) -> Path:
    """Return the folder's file of weights if it holds all tensors of `unet` in their shapes; read no numbers.

    Raises:
        UserError: if there is none, or it does not fit.
    """
    path = unet_weights_file(folder)
    given = tensor_shapes(path)
    own = {name: tuple(value.shape) for name, value in unet.state_dict().items()}
    missing = [name for name in own if name not in given]
    other = [name for name in own if name in given and given[name] != own[name]]
    if missing or other:
        first = f"{missing[0]} is missing" if missing else ""
        if other:
            first = f"{other[0]} has shape {given[other[0]]}, expected {own[other[0]]}"
        raise UserError(
            f"UNet weights {path} do not fit their config.json: {len(missing)} of {len(own)} tensors are"
            f" missing, {len(other)} have another shape ({first})",
            f"download both again, {GUIDE}",
        )
    return path


@torch.no_grad()
def load_unet_weights(unet: nn.Module, folder: str) -> Path:
    """Copy the folder's weights into `unet`, a tensor at a time, so that they are never in memory twice.

    Returns:
        The file.

    Raises:
        UserError: as `check_unet_weights`.
    """
    path = check_unet_weights(unet, folder)
    own = unet.state_dict()
    with _readable(path):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                for name, value in own.items():
                    value.copy_(file.get_tensor(name))
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name, value in own.items():
                value.copy_(state[name])
    return path


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read ({reason})", f"download it again, {GUIDE}") from error
