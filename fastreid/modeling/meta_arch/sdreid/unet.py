"""The denoising UNet: diffusers' own, from a folder or small and from random weights; what of it trains."""

import math

import torch
from diffusers import UNet2DConditionModel

from fastreid.config import CfgNode
from fastreid.modeling.meta_arch.sdreid.assets import UNET, read_unet_config
from fastreid.modeling.meta_arch.sdreid.attention import KeepingAttnProcessor
from fastreid.modeling.meta_arch.sdreid.cast_once import cast_frozen_weights_once
from fastreid.modeling.meta_arch.sdreid.latent import LATENT_CHANNELS, latent_shape
from fastreid.utils.errors import UserError

PROJECTIONS = {"Q": "to_q", "K": "to_k", "V": "to_v", "OUT": "to_out"}


def build_unet(settings: CfgNode, context_dim: int) -> UNet2DConditionModel:
    """Build the UNet of ``UNET_CONFIG`` from random weights, with gradients on for the parameters that train.

    Of a pretrained folder only the ``config.json`` is read; :func:`load_unet_weights` reads its weights.

    Args:
        settings: MODEL.SDMODEL.UNET_CONFIG.
        context_dim: width of the cross-attention context, the backbone's D.

    Raises:
        UserError: if the folder does not describe a UNet that fits, or a block index does not exist.
    """
    path = settings.PRETRAINED_PATH
    unet = _described_unet(path, context_dim) if path else _small_unet(settings, context_dim)
    unet.set_attn_processor(KeepingAttnProcessor())
    _select_trainable(unet, settings)
    cast_frozen_weights_once(unet)
    return unet


def _described_unet(folder: str, context_dim: int) -> UNet2DConditionModel:
    config, shape = read_unet_config(folder, context_dim), latent_shape(context_dim)
    try:
        with torch.device("meta"), torch.no_grad():  # tried without numbers, before there is memory for them
            latents, context = torch.zeros(1, *shape), torch.zeros(1, 2, context_dim)
            steps = torch.zeros(1, dtype=torch.int64)
            given = UNet2DConditionModel.from_config(config)(latents, steps, context, return_dict=False)[0]
        if given.shape != latents.shape:
            raise ValueError(f"it makes {tuple(given.shape)} of latents {tuple(latents.shape)}")
    except Exception as error:  # diffusers and torch raise what they come upon
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{UNET} {folder}: no usable diffusers UNet folder (config.json): {reason}"
        ) from error
    return UNet2DConditionModel.from_config(config)


def _small_unet(settings: CfgNode, context_dim: int) -> UNet2DConditionModel:
    widths = tuple(settings.WIDTHS)
    if not widths or any(width % settings.HEAD_DIM for width in widths):
        raise UserError(
            f"MODEL.SDMODEL.UNET_CONFIG.WIDTHS {list(widths)} must be multiples of"
            f" HEAD_DIM {settings.HEAD_DIM}"
        )
    return UNet2DConditionModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=settings.LAYERS_PER_BLOCK,
        # diffusers' `attention_head_dim` is, for historical reasons, the number of heads.
        attention_head_dim=tuple(width // settings.HEAD_DIM for width in widths),
        # Several channels in each group: the norm of a single one removes what the timestep adds to it.
        norm_num_groups=math.gcd(8, settings.HEAD_DIM),
        cross_attention_dim=context_dim,
    )


def _select_trainable(unet: UNet2DConditionModel, settings: CfgNode) -> None:
    unet.requires_grad_(settings.TRAIN_ALL)
    for index in settings.TRAINABLE_BLOCK_IDX:
        if not 0 <= index < len(unet.up_blocks):
            raise UserError(
                f"MODEL.SDMODEL.UNET_CONFIG.TRAINABLE_BLOCK_IDX {list(settings.TRAINABLE_BLOCK_IDX)}:"
                f" the decoder has blocks 0 to {len(unet.up_blocks) - 1}"
            )
        for name, module in unet.up_blocks[index].named_modules():
            kind = {"attn1": "SELF", "attn2": "CROSS"}.get(name.rsplit(".", 1)[-1])
            for suffix, projection in PROJECTIONS.items():
                if kind and settings[f"TRAIN_{kind}_ATTN_{suffix}"]:
                    getattr(module, projection).requires_grad_(True)
