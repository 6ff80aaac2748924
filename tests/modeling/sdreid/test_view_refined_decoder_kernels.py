"""``MODEL.SDMODEL.VRD_CONFIG.KERNEL_SIZES``: other kernels than the strides."""

import pytest
import torch
from toy_conditions import DIM

from fastreid.modeling.meta_arch.sdreid.latent import latent_shape
from fastreid.modeling.meta_arch.sdreid.unet import build_unet
from fastreid.modeling.meta_arch.sdreid.view_refined_decoder import ViewRefinedDecoder, refined_unet
from fastreid.utils.errors import UserError

KEY = "MODEL.SDMODEL.VRD_CONFIG.KERNEL_SIZES"


@pytest.mark.parametrize("kernels", [[3, 3, 3], [1, 5, 7], [4, 4, 4], [2, 2, 2], [6, 8, 10]])
@pytest.mark.parametrize("dim", [128, 192])  # maps of 16 x 8 and of 16 x 12, which 8 does not divide
def test_every_kernel_gives_pyramids_that_fit_the_unet(tiny_cfg, randomize, kernels, dim):
    unet = build_unet(tiny_cfg(2).MODEL.SDMODEL.UNET_CONFIG, dim)
    vrd, plain = ViewRefinedDecoder(dim, unet, kernels), ViewRefinedDecoder(dim, unet)
    randomize(vrd)
    tokens = torch.randn(2, dim)
    residuals = vrd(tokens)
    for pyramid, expected in zip(residuals, plain(tokens), strict=True):
        assert [level.shape for level in pyramid] == [level.shape for level in expected]
    latents = torch.randn(2, *latent_shape(dim))
    assert refined_unet(unet, latents, 5, torch.randn(2, 4, dim), residuals).shape == latents.shape


def test_a_kernel_of_3_is_a_convolution_with_padding_1(tiny_cfg, randomize):
    vrd = ViewRefinedDecoder(DIM, build_unet(tiny_cfg(2).MODEL.SDMODEL.UNET_CONFIG, DIM), [3, 3, 3])
    randomize(vrd)
    tokens = torch.randn(2, DIM)
    for level, (projection, found) in enumerate(zip(vrd.decoder, vrd(tokens).decoder, strict=True)):
        stride = (2, 4, 8)[level]
        expected = torch.nn.functional.conv2d(
            tokens.view(2, 1, 16, 8), projection.weight, projection.bias, stride, padding=1
        )
        torch.testing.assert_close(found, expected)


def test_the_configuration_chooses_them(generator):
    kernels = [conv.kernel_size[0] for conv in generator(KEY, "[3, 5, 8]").view_refined_decoder.encoder]
    assert kernels == [3, 5, 8]
    with pytest.raises(UserError, match=r"KERNEL_SIZES \[3, 3\]: expected 3 numbers"):
        generator(KEY, "[3, 3]")
