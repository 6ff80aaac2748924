"""Checks of the files that a configuration names, made in milliseconds and before anything is written."""

import json
from pathlib import Path

from fastreid.config import CfgNode
from fastreid.modeling.backbones.pretrained import require_vit_weights
from fastreid.utils.errors import UserError

GUIDE = "see pretrained/README.md"
UNET_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def check_assets(cfg: CfgNode, training: bool) -> None:
    """Check that the files which a fresh training or an evaluation reads are there and fit.

    Raises:
        UserError: naming the first missing or unfit one, its key and what to do.
    """
    stage2 = cfg.MODEL.META_ARCHITECTURE == "SDReIDStage2"
    if cfg.MODEL.WEIGHTS:
        _check_weights(cfg.MODEL.WEIGHTS, stage2 and training)
    elif not training:
        raise UserError(
            "MODEL.WEIGHTS is empty: --eval-only needs a checkpoint, such as OUTPUT_DIR's model_best.pth"
        )
    elif stage2:
        raise UserError(
            "MODEL.WEIGHTS is empty: Stage 2 trains from a Stage-1 checkpoint, its model_best.pth"
        )
    elif cfg.MODEL.BACKBONE.PRETRAIN:
        require_vit_weights(cfg.MODEL.BACKBONE.PRETRAIN_PATH, cfg.MODEL.BACKBONE.FEAT_DIM)
    if stage2:
        _check_diffusion_folders(cfg)


def _check_weights(path: str, from_stage1: bool) -> None:
    if not Path(path).is_file():
        advice = "train Stage 1 first, or name its checkpoint" if from_stage1 else "check the path"
        raise UserError(f"MODEL.WEIGHTS: {path} not found; {advice}")


def _check_diffusion_folders(cfg: CfgNode) -> None:
    settings, dim = cfg.MODEL.SDMODEL, cfg.MODEL.BACKBONE.FEAT_DIM
    if settings.UNET_CONFIG.PRETRAINED_PATH:
        config = _read_folder(
            "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", settings.UNET_CONFIG.PRETRAINED_PATH, "config.json"
        )
        folder = Path(settings.UNET_CONFIG.PRETRAINED_PATH)
        if not any((folder / name).is_file() for name in UNET_WEIGHTS):
            raise UserError(f"UNet weights not found: {folder / UNET_WEIGHTS[0]}; {GUIDE}")
        width = config.get("cross_attention_dim")
        if width != dim:
            raise UserError(
                f"MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH {folder}: its cross_attention_dim is {width},"
                f" MODEL.BACKBONE.FEAT_DIM is {dim}; Stable Diffusion v1.5 (768) goes with a ViT-Base"
            )
    if settings.SCHEDULER_CONFIG.PRETRAINED_PATH:
        _read_folder(
            "MODEL.SDMODEL.SCHEDULER_CONFIG.PRETRAINED_PATH",
            settings.SCHEDULER_CONFIG.PRETRAINED_PATH,
            "scheduler_config.json",
        )
    # The VAE takes no part in training or retrieval: an absent folder is fine, a broken one is not.
    vae = settings.FIRST_STAGE_CONFIG.PRETRAINED_PATH
    if vae and Path(vae).exists():
        _read_folder("MODEL.SDMODEL.FIRST_STAGE_CONFIG.PRETRAINED_PATH", vae, "config.json")


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
        raise UserError(f"{key}: {path} is not readable JSON: download it again ({GUIDE})") from error
    if not isinstance(config, dict):
        raise UserError(f"{key}: {path} should hold a JSON object: download it again ({GUIDE})")
    return config
