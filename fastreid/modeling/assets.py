"""Checks of the files that a configuration names, made in milliseconds and before anything is written."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fastreid.config import CfgNode
from fastreid.modeling.backbones.pretrained import require_vit_weights
from fastreid.utils.errors import UserError

STAGE2 = "SDReIDStage2"
GUIDE = "see pretrained/README.md"
UNET_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")

AssetCheck = Callable[[], str]  # says what it found, or raises a UserError


def check_assets(cfg: CfgNode, training: bool) -> None:
    """Check that the files which a fresh training or an evaluation reads are there and fit.

    Raises:
        UserError: naming the first missing or unfit one, its key and what to do.
    """
    for _, check in asset_checks(cfg, training):
        check()


def asset_checks(cfg: CfgNode, training: bool) -> Iterator[tuple[str, AssetCheck]]:
    """``(what it is, its check)`` for each file and folder that a fresh training or an evaluation reads."""
    stage2 = cfg.MODEL.META_ARCHITECTURE == STAGE2
    starts_anew = training and not stage2 and not cfg.MODEL.WEIGHTS
    if not starts_anew:
        yield "weights", partial(_check_weights, cfg, training)
    elif cfg.MODEL.BACKBONE.PRETRAIN:
        settings = cfg.MODEL.BACKBONE
        yield "ViT weights", lambda: str(require_vit_weights(settings.PRETRAIN_PATH, settings.FEAT_DIM))
    if stage2:
        yield from _diffusion_checks(cfg, training)


def unet_weights_file(folder: str | Path) -> Path:
    """The file of weights in a diffusers UNet folder.

    Raises:
        UserError: if there is none.
    """
    paths = [Path(folder) / name for name in UNET_WEIGHTS]
    for path in paths:
        if path.is_file():
            return path
    raise UserError(f"UNet weights not found: {paths[0]}; {GUIDE}")


def required_weights(cfg: CfgNode, training: bool) -> str:
    """MODEL.WEIGHTS; empty only where training may start without, which is in Stage 1.

    Raises:
        UserError: if it is empty elsewhere.
    """
    if not cfg.MODEL.WEIGHTS and not training:
        raise UserError(
            "MODEL.WEIGHTS is empty: name the checkpoint to evaluate, such as OUTPUT_DIR's model_best.pth"
        )
    if not cfg.MODEL.WEIGHTS and cfg.MODEL.META_ARCHITECTURE == STAGE2:
        raise UserError(
            "MODEL.WEIGHTS is empty: Stage 2 trains from a Stage-1 checkpoint, its model_best.pth"
        )
    return cfg.MODEL.WEIGHTS


def _check_weights(cfg: CfgNode, training: bool) -> str:
    path = required_weights(cfg, training)
    if not Path(path).is_file():
        from_stage1 = training and cfg.MODEL.META_ARCHITECTURE == STAGE2
        advice = "train Stage 1 first, or name its checkpoint" if from_stage1 else "check the path"
        raise UserError(f"MODEL.WEIGHTS: {path} not found; {advice}")
    return path


def _diffusion_checks(cfg: CfgNode, training: bool) -> Iterator[tuple[str, AssetCheck]]:
    settings = cfg.MODEL.SDMODEL
    if settings.UNET_CONFIG.PRETRAINED_PATH:
        yield "UNet folder", partial(_check_unet_folder, cfg, training)
    if settings.SCHEDULER_CONFIG.PRETRAINED_PATH:
        key = "MODEL.SDMODEL.SCHEDULER_CONFIG.PRETRAINED_PATH"
        path = settings.SCHEDULER_CONFIG.PRETRAINED_PATH
        yield "scheduler folder", partial(_check_folder, key, path, "scheduler_config.json")
    # The VAE takes no part in training or retrieval: an absent folder is fine, a broken one is not.
    vae = settings.FIRST_STAGE_CONFIG.PRETRAINED_PATH
    if vae and Path(vae).exists():
        key = "MODEL.SDMODEL.FIRST_STAGE_CONFIG.PRETRAINED_PATH"
        yield "VAE folder", partial(_check_folder, key, vae, "config.json")


def _check_unet_folder(cfg: CfgNode, training: bool) -> str:
    key, folder = "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", cfg.MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH
    config = _read_folder(key, folder, "config.json")
    if training:  # a checkpoint to evaluate holds all of the UNet
        unet_weights_file(folder)
    width, dim = config.get("cross_attention_dim"), cfg.MODEL.BACKBONE.FEAT_DIM
    if width != dim:
        raise UserError(
            f"{key} {folder}: its cross_attention_dim is {width},"
            f" MODEL.BACKBONE.FEAT_DIM is {dim}; Stable Diffusion v1.5 (768) goes with a ViT-Base"
        )
    return f"{folder}, width {width} as MODEL.BACKBONE.FEAT_DIM"


def _check_folder(key: str, folder: str, name: str) -> str:
    _read_folder(key, folder, name)
    return str(Path(folder) / name)


def _read_folder(key: str, folder: str, name: str) -> dict:
    """The JSON file `name` of a diffusers folder."""
    path = Path(folder) / name
    if not path.is_file():
        raise UserError(
            f"{key}: not found: {path}; download Stable Diffusion v1.5 in diffusers format and put its"
            f" folders under pretrained/stable-diffusion-v1-5 ({GUIDE}), or name yours with the key"
        )
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: {path} is not readable JSON: download it again; {GUIDE}") from error
    if not isinstance(config, dict):
        raise UserError(f"{key}: {path} should hold a JSON object: download it again; {GUIDE}")
    return config
