"""The folders of Stable Diffusion that Stage 2 reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from fastreid.config import CfgNode
from fastreid.modeling.assets import Asset
from fastreid.modeling.backbones import feature_width
from fastreid.modeling.meta_arch.sdreid.latent import LATENT_CHANNELS
from fastreid.modeling.meta_arch.sdreid.unet_weights import (
    AGAIN,
    GUIDE,
    check_unet_weights,
    unet_weights_file,
)
from fastreid.utils.documents import load_json
from fastreid.utils.errors import UserError
from fastreid.utils.weight_files import instead_of_content

UNET = "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH"
SCHEDULER = "MODEL.SDMODEL.SCHEDULER_CONFIG.PRETRAINED_PATH"
VAE = "MODEL.SDMODEL.FIRST_STAGE_CONFIG.PRETRAINED_PATH"
MOST_LAYERS = 100  # of a block, and blocks
LARGEST = 10_000  # of any other number of a UNet


def diffusion_assets(cfg: CfgNode, training: bool) -> Iterator[Asset]:
    """Yield the folders that the configuration names."""
    settings = cfg.MODEL.SDMODEL
    unet = settings.UNET_CONFIG.PRETRAINED_PATH
    if unet:
        contents = (lambda model: _check_tensors(model, unet)) if training else None
        yield Asset("UNet folder", lambda: _check_unet_folder(cfg, training), contents)
    scheduler = settings.SCHEDULER_CONFIG.PRETRAINED_PATH
    if scheduler:
        yield Asset("scheduler folder", lambda: _check_folder(SCHEDULER, scheduler, "scheduler_config.json"))
    # The VAE takes no part in training or retrieval: an absent folder is fine, a broken one is not.
    vae = settings.FIRST_STAGE_CONFIG.PRETRAINED_PATH
    if vae and Path(vae).exists():
        yield Asset("VAE folder", lambda: _check_folder(VAE, vae, "config.json"))


def read_folder(key: str, folder: str, name: str) -> dict:
    """Return the JSON file `name` of a diffusers folder that the configuration key names.

    Raises:
        UserError: if it is not there or no JSON object.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise UserError(
            f"{key}: not found: {path}",
            "download Stable Diffusion v1.5 in diffusers format and put its folders under"
            f" pretrained/stable-diffusion-v1-5 ({GUIDE}), or name yours with the key",
        )
    try:
        config = load_json(path)
    except (OSError, ValueError) as error:
        told = instead_of_content(path)
        kind, advice = told or ("not readable JSON", AGAIN)
        raise UserError(f"{key}: {path} is {kind}", advice) from error
    if not isinstance(config, dict):
        raise UserError(f"{key}: {path} should hold a JSON object", AGAIN)
    return config


def read_unet_config(folder: str, context_dim: int) -> dict:
    """Return the ``config.json`` of a diffusers UNet folder.

    Args:
        context_dim: width of the cross-attention context, the backbone's D.

    Raises:
        UserError: if it is not there, or is no UNet for this width and its latents.
    """
    config = read_folder(UNET, folder, "config.json")
    width, channels = config.get("cross_attention_dim"), config.get("in_channels", LATENT_CHANNELS)
    if (width, channels) != (context_dim, LATENT_CHANNELS):
        raise UserError(
            f"{UNET} {folder}: its cross_attention_dim is {width} and its in_channels {channels}, but the"
            f" backbone's features of width {context_dim} need {context_dim} and {LATENT_CHANNELS}",
            "use Stable Diffusion v1.5 (768) with a ViT-Base",
        )
    _check_sizes(config, f"{UNET}: {Path(folder) / 'config.json'}")
    return config


def _check_sizes(value: Any, source: str, name: str = "") -> None:
    """Check that the numbers of a UNet's configuration, at any depth, are some that a UNet may have."""
    most = MOST_LAYERS if "layers" in name else LARGEST
    if isinstance(value, dict):
        for key, part in value.items():
            _check_sizes(part, source, key)
    elif isinstance(value, list):
        if len(value) > MOST_LAYERS:
            raise UserError(f"{source}: {name} has {len(value)} values, more than {MOST_LAYERS}", AGAIN)
        for part in value:
            _check_sizes(part, source, name)
    elif isinstance(value, int | float) and not 0 <= value <= most:
        raise UserError(f"{source}: {name} is {value}, expected a number from 0 to {most}", AGAIN)


def _check_unet_folder(cfg: CfgNode, training: bool) -> str:
    folder, width = cfg.MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH, feature_width(cfg)
    read_unet_config(folder, width)
    if training:  # a checkpoint to evaluate holds all of the UNet
        unet_weights_file(folder)
    return f"{folder}, width {width} as the backbone's features"


def _check_tensors(model: nn.Module, folder: str) -> str:
    check_unet_weights(model.generator.unet, folder)
    return f"{len(model.generator.unet.state_dict())} tensors fit {Path(folder) / 'config.json'}"


def _check_folder(key: str, folder: str, name: str) -> str:
    read_folder(key, folder, name)
    return str(Path(folder) / name)
