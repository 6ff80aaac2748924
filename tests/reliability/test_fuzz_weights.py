"""Weights of other programs, damaged and odd: a model starts from them, or there is one error."""

import copy
import json
import os
import struct
from pathlib import Path

import pytest
import torch
from hostile import changes, fuzz, places, refused, replaced
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import nn
from worlds.options import tiny_cfg

from fastreid.modeling.backbones.resnet import ResNet
from fastreid.modeling.backbones.view_prompt_vit import ViewPromptTransformer
from fastreid.modeling.meta_arch.sdreid.sampler import Sampler
from fastreid.modeling.meta_arch.sdreid.schedulers import SD_V1_5
from fastreid.modeling.meta_arch.sdreid.unet import build_unet
from fastreid.modeling.meta_arch.sdreid.unet_weights import load_unet_weights
from fastreid.utils.errors import UserError

NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
WIDTH = 64  # of the UNet's context

BAD_TENSORS = {
    "integers": (lambda value: value.int(), "is torch.int32 instead of torch.float32"),
    "booleans": (lambda value: value.bool(), "is torch.bool instead of torch.float32"),
    "complex": (lambda value: value.to(torch.complex64), "is torch.complex64 instead of torch.float32"),
    "float8": (lambda value: value.to(torch.float8_e4m3fn), "of torch.float8_e4m3fn, which means nothing"),
    "sparse": (lambda value: value.to_sparse(), "is a tensor torch.sparse_coo on cpu"),
    "meta": (lambda value: value.to("meta"), "is a tensor torch.strided on meta"),
    "NaN": (lambda value: torch.full_like(value, float("nan")), "has NaN, so that the model"),
    "infinity": (lambda value: torch.full_like(value, -float("inf")), "has a number that is infinite"),
    "too large": (lambda value: torch.full_like(value, 1e300, dtype=torch.float64), "infinite in float32"),
    "another shape": (lambda value: torch.zeros(2, 3, 5), r"is \(2, 3, 5\) instead of \("),
    "one number": (lambda value: torch.zeros(()), r"is \(\) instead of \("),
}
GOOD_TENSORS = {
    **{
        str(dtype): (lambda value, to=dtype: value.to(to))
        for dtype in (torch.half, torch.bfloat16, torch.double)
    },
    "expanded": lambda value: torch.full((1,) * value.ndim, 0.5).expand(value.shape),
    "a parameter": nn.Parameter,
}


def vit() -> ViewPromptTransformer:
    return ViewPromptTransformer((32, 16), 8, (8, 8), 16, 2, 2)


class Unet:
    """A small UNet and a folder of it, whose files tests write anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = tiny_cfg(folder).MODEL.SDMODEL.UNET_CONFIG
        self.settings.WIDTHS, self.settings.TRAINABLE_BLOCK_IDX = [32], [0]
        self.model = build_unet(self.settings, WIDTH)
        self.model.save_config(folder)
        self.config = json.loads((folder / "config.json").read_text())
        self.state = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.settings.PRETRAINED_PATH = str(folder)

    def describe(self, config: object) -> None:
        (self.folder / "config.json").write_text(json.dumps(config))
        build_unet(self.settings, WIDTH)

    def load(self, state: dict) -> None:
        """Load tensors that are written as torch writes them."""
        torch.save(state, self.folder / NAMES[1])
        load_unet_weights(self.model, str(self.folder))


@pytest.fixture(scope="module")
def unet(tmp_path_factory) -> Unet:
    return Unet(tmp_path_factory.mktemp("unet"))


def loads(unet: Unet, path: Path, kind: str):
    """Return the weights of a model, the name of one, and what loads others into it."""
    if kind == "UNet":
        return unet.state, "mid_block.resnets.0.conv1.weight", unet.load
    model, name = (vit(), "pos_embed") if kind == "ViT" else (ResNet("18x"), "layer1.0.conv1.weight")
    own = model if kind == "ViT" else model.network

    def load(state: dict) -> None:
        torch.save(state, path / "weights.pth")
        model.load_pretrained(path / "weights.pth")

    return {n: v.clone() for n, v in own.state_dict().items()}, name, load


@pytest.mark.parametrize("kind", ["ViT", "ResNet", "UNet"])
def test_tensors_that_cannot_be_weights_are_refused_and_other_floats_are_not(unet, tmp_path, kind):
    state, name, load = loads(unet, tmp_path, kind)
    for change in GOOD_TENSORS.values():
        load(state | {name: change(state[name])})
    for change, said in BAD_TENSORS.values():
        with pytest.raises(UserError, match=said) as error:
            load(state | {name: change(state[name])})
        assert name in str(error.value)
    for empty in ({}, {"state_dict": {}}, [1.0], {"model": 3}, {7: torch.zeros(1)}):
        with pytest.raises(UserError):
            load(empty)


FILES = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
    "page": (b"\n<!DOCTYPE html><html>Not Found</html>", "is a web page"),
    "empty": (b"", "is empty"),
    "text": (b"PROMISED, to be uploaded", "not a PyTorch file|cannot be read as safetensors"),
}


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_what_stands_in_place_of_a_file_is_named(unet, tmp_path, name):
    path, in_folder = tmp_path / name, unet.folder / NAMES[name == "a.pth"]
    in_folder.unlink(missing_ok=True)
    for content, said in FILES.values():
        for file, load in ((path, vit().load_pretrained), (in_folder, lambda _: unet_loads(unet))):
            file.write_bytes(content)
            with pytest.raises(UserError, match=said):
                load(file)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is no file, but a pipe"):
        vit().load_pretrained(path)
    path.unlink()
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(UserError, match="not found, a link to .*moved"):
        vit().load_pretrained(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="is a folder"):
        vit().load_pretrained(path)
    in_folder.unlink()


def unet_loads(unet: Unet) -> None:
    load_unet_weights(unet.model, str(unet.folder))


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(16)


ENTRY = b'"norm.weight":{"dtype":"F32","shape":[%s],"data_offsets":[%d,%d]}'
HEADERS = {
    "nonsense": header(b"{nonsense"),
    "shorter than told": header(b"{}", 10_000),
    "endless": header(b"{}", 2**63),
    "beyond the end": header(b"{" + ENTRY % (b"4", 16, 32) + b"}"),
    "two of one name": header(b"{" + ENTRY % (b"2", 0, 8) + b"," + ENTRY % (b"2", 8, 16) + b"}"),
    "negative": header(b"{" + ENTRY % (b"-4", 0, 16) + b"}"),
    "none": header(b"{}")[:10],
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_damaged_header_is_one_error(tmp_path, kind):
    (tmp_path / "a.safetensors").write_bytes(HEADERS[kind])
    with pytest.raises(UserError, match=r"a.safetensors(:| cannot be read as safetensors)"):
        vit().load_pretrained(tmp_path / "a.safetensors")


@fuzz
@given(data=st.data())
def test_a_file_with_other_bytes_anywhere(tmp_path_factory, data):
    model, path = vit(), tmp_path_factory.getbasetemp() / "other.safetensors"
    content = bytearray(save(model.state_dict()))
    start = data.draw(st.integers(0, 3000) | st.integers(0, len(content) - 1))
    content[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    path.write_bytes(content)
    refused(lambda: model.load_pretrained(path))


DTYPES = [torch.half, torch.bfloat16, torch.float, torch.double, torch.int64, torch.bool, torch.complex64]


@fuzz
@given(
    name=st.sampled_from(["pos_embed", "patch_embed.proj.weight", "cls_token", "norm.bias", "head.weight"]),
    shape=st.lists(st.sampled_from([0, 1, 2, 3, 5, 8, 10, 16, 17]), max_size=4),
    dtype=st.sampled_from(DTYPES),
    safe=st.booleans(),
)
@example(name="pos_embed", shape=[1, 1, 16], dtype=torch.float, safe=True)
@example(name="pos_embed", shape=[2, 10, 16], dtype=torch.float, safe=True)
@example(name="patch_embed.proj.weight", shape=[16, 3], dtype=torch.float, safe=True)
@example(name="patch_embed.proj.weight", shape=[16, 3, 0, 8], dtype=torch.float, safe=True)
@example(name="patch_embed.proj.weight", shape=[16, 3, 16, 16], dtype=torch.half, safe=False)
def test_a_tensor_of_any_shape_and_type(tmp_path_factory, name, shape, dtype, safe):
    model, path = vit(), tmp_path_factory.getbasetemp() / ("any.safetensors" if safe else "any.pth")
    state = model.state_dict() | {name: torch.ones(shape, dtype=dtype)}
    save_file(state, path) if safe else torch.save(state, path)
    refused(lambda: model.load_pretrained(path))
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@fuzz
@given(data=st.data())
def test_a_config_of_the_unet_with_another_value_anywhere(unet, data):
    path = data.draw(st.sampled_from(places(unet.config)))
    config = replaced(copy.deepcopy(unet.config), path, data.draw(changes | st.just(lambda v: [v, v])))
    try:
        json.dumps(config)
    except (TypeError, ValueError):
        return  # what JSON has no words for
    refused(lambda: unet.describe(config))


ODD = {
    "layers_per_block": (10**9, "expected a number from 0 to 100"),
    "norm_eps": (float("nan"), "norm_eps is nan, expected a number from 0"),
    "block_out_channels": ([-32], "block_out_channels is -32, expected a number from 0"),
    "act_fn": ("relu9", "no usable diffusers UNet folder"),
    "out_channels": (3, r"it makes \(1, 3, 4, 4\) of latents \(1, 4, 4, 4\)"),
    "class_embed_type": ("timestep", "class_labels should be provided"),
}


@pytest.mark.parametrize("key", ODD)
def test_a_unet_that_cannot_be_called_as_it_will_be_is_refused_before(unet, key):
    value, said = ODD[key]
    with pytest.raises(UserError, match=said) as error:
        unet.describe(unet.config | {key: value})
    assert "\n" not in str(error.value)


@fuzz
@given(data=st.data(), name=st.sampled_from(["ddpm", "euler", "dpmsolver++"]))
def test_a_schedule_with_another_value_anywhere(data, name):
    path = (data.draw(st.sampled_from(sorted(SD_V1_5))),)
    settings = replaced(SD_V1_5 | {"num_train_timesteps": 10}, path, data.draw(changes))
    refused(lambda: Sampler(name, settings, 2))


@pytest.mark.parametrize("betas", [{"beta_end": float("nan")}, {"beta_start": 0.0, "beta_end": 0.0}], ids=str)
def test_a_schedule_without_noise_is_refused(betas):
    with pytest.raises(UserError, match=r"scheduler_config.json gives no schedule of noise"):
        Sampler("ddpm", SD_V1_5 | {"num_train_timesteps": 10} | betas, 2)
