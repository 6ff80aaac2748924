"""The View-Refined Decoder: view tokens as residuals of the UNet's encoder and decoder (SD-ReID, Stage 2)."""

from collections.abc import Sequence
from typing import NamedTuple

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from fastreid.modeling.meta_arch.sdreid.attention import KeptProjections
from fastreid.modeling.meta_arch.sdreid.latent import latent_shape
from fastreid.utils.errors import UserError


class UNetResiduals(NamedTuple):
    """Two pyramids, finest level first: (B, width_i, ceil(h / 2^i), ceil(w / 2^i)) at level i; or none."""

    encoder: tuple[Tensor, ...]
    decoder: tuple[Tensor, ...]

    def repeat(self, times: int) -> "UNetResiduals":
        """Return the whole batch `times` times over: maps 0 .. B-1, then again 0 .. B-1, and so on."""
        encoder, decoder = (tuple(level.repeat(times, 1, 1, 1) for level in pyramid) for pyramid in self)
        return UNetResiduals(encoder, decoder)

    def first(self, count: int) -> "UNetResiduals":
        """Return the first `count` maps of the batch."""
        encoder, decoder = (tuple(level[:count] for level in pyramid) for pyramid in self)
        return UNetResiduals(encoder, decoder)


class ViewRefinedDecoder(nn.Module):
    """Projects a view token, seen as a (1, 2h, 2w) map, to one pyramid for each half of the UNet.

    There is a level for each of the UNet's encoder blocks with cross-attention (three in SD v1.5, of
    widths 320, 640 and 1280).

    Args:
        dim: view token width D = 4hw.
        unet: the UNet whose blocks are refined; only its configuration is read.
        kernel_sizes: of each level's convolutions; empty: their strides, so that patches do not overlap.
        pyramids: "encoder", "decoder", both or neither: the halves of the UNet that are refined.

    Raises:
        UserError: for another number of kernels than levels, or a UNet that cannot be refined.
    """

    def __init__(
        self,
        dim: int,
        unet: UNet2DConditionModel,
        kernel_sizes: Sequence[int] = (),
        pyramids: Sequence[str] = ("encoder", "decoder"),
    ) -> None:
        super().__init__()
        _, height, width = latent_shape(dim)
        self.map_shape = (1, 2 * height, 2 * width)
        widths = attention_widths(unet)
        strides = [2 ** (level + 1) for level in range(len(widths))]
        kernels = list(kernel_sizes) or strides
        if len(kernels) != len(widths):
            raise UserError(
                f"MODEL.SDMODEL.VRD_CONFIG.KERNEL_SIZES {kernels}: expected {len(widths)} numbers, one for"
                f" each of the UNet's encoder blocks with cross-attention, or [] for their strides {strides}"
            )
        shapes = list(zip(widths, kernels, strides, strict=True))
        self.encoder, self.decoder = (
            nn.ModuleList(_projection(*shape) for shape in shapes if half in pyramids)
            for half in ("encoder", "decoder")
        )

    def forward(self, view_tokens: Tensor) -> UNetResiduals:
        """Return the pyramids of view tokens (B, D)."""
        maps = view_tokens.unflatten(1, self.map_shape)
        return UNetResiduals(
            tuple(_project(convolution, maps) for convolution in self.encoder),
            tuple(_project(convolution, maps) for convolution in self.decoder),
        )


def attention_widths(unet: UNet2DConditionModel) -> list[int]:
    """Return the channels of the UNet's encoder blocks with cross-attention, finest first.

    Raises:
        UserError: if there is none, or one stands below a block without, as in Stable Diffusion XL.
    """
    attends = ["CrossAttn" in kind for kind in unet.config.down_block_types]
    count = sum(attends)
    if not count or not all(attends[:count]):
        raise UserError(
            f"MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH: a UNet with encoder blocks"
            f" {list(unet.config.down_block_types)}; the View-Refined Decoder needs cross-attention in the"
            " first ones, as in Stable Diffusion v1.5"
        )
    return list(unet.config.block_out_channels[:count])


def refined_unet(
    unet: UNet2DConditionModel,
    latents: Tensor,
    timesteps: Tensor,
    context: Tensor,
    residuals: UNetResiduals,
    kept: KeptProjections | None = None,
) -> Tensor:
    """Call the UNet with both pyramids, through the arguments that diffusers has for them.

    The encoder pyramid goes in after each attention block (the T2I-Adapter path). The decoder pyramid is
    added to the skip connections (the ControlNet path), which the decoder alone reads.

    Args:
        latents: (N, 4, h, w).
        timesteps: (N,) or a scalar.
        context: (N, L, D).
        residuals: pyramids of N maps; an empty one refines nothing.
        kept: projections of a context whose last rows are `context`.

    Returns:
        (N, 4, h, w), the prediction.
    """
    return unet(
        latents,
        timesteps,
        encoder_hidden_states=context,
        cross_attention_kwargs=None if kept is None else {"kept": kept},
        # diffusers takes the levels out of the list that it is given: this one is made for this call alone.
        down_intrablock_additional_residuals=list(residuals.encoder),
        down_block_additional_residuals=_skip_residuals(unet, residuals.decoder),
        mid_block_additional_residual=latents.new_zeros(()) if residuals.decoder else None,
        return_dict=False,
    )[0]


def _skip_residuals(unet: UNet2DConditionModel, pyramid: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """One tensor for each skip connection, in the order of the encoder: its block's level, else zero.

    The encoder's skips are: the first convolution's; then of each block its layers' and, unless the
    block is the last, that of its down-sampling, which has the next level's size and this one's width.
    """
    if not pyramid:
        return None
    none = pyramid[0].new_zeros(())
    layers = unet.config.layers_per_block
    depth = len(unet.config.block_out_channels)
    skips = [none]
    for block in range(depth):
        count = layers if isinstance(layers, int) else layers[block]
        level = pyramid[block] if block < len(pyramid) else none
        skips += [level] * count
        if block < depth - 1:
            skips.append(none)
    return tuple(skips)


def _projection(width: int, kernel: int, stride: int) -> nn.Conv2d:
    """From the (1, 2h, 2w) map to one level: an output for each patch of `stride` x `stride`.

    An odd kernel is centred on the patch's first pixel, an even one on the patch.
    """
    padding = kernel // 2 if kernel % 2 else max(0, (kernel - stride) // 2)
    return nn.Conv2d(1, width, kernel_size=kernel, stride=stride, padding=padding)


def _project(convolution: nn.Conv2d, maps: Tensor) -> Tensor:
    """Strided convolution whose output size is rounded up, as the UNet's own down-sampling rounds."""
    stride = convolution.stride[0]
    bottom, right = (-size % stride for size in maps.shape[-2:])
    return convolution(nn.functional.pad(maps, (0, right, 0, bottom)))
