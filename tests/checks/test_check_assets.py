"""Pretrained files: their tensors beside the model's, read without loading a model."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from fastreid.checks.assets import check_asset_contents, check_assets
from fastreid.modeling import build_meta_model, build_model, fit_config
from fastreid.modeling.meta_arch.sdreid.unet import build_unet

IDENTITIES, VIEWS = 6, ("aerial", "ground")


@pytest.fixture
def vit(cfg, tmp_path):
    """`vit(**changes)`: writes a timm-format ViT for the configuration's encoder; None leaves a key out."""

    def write(name: str = "vit.pth", **changes) -> None:
        state = {
            k: v
            for k, v in build_model(fit_config(cfg, IDENTITIES, VIEWS)).backbone.state_dict().items()
            if k != "view_prompt"
        }
        state["pos_embed"] = torch.zeros(1, 1 + 49, 64)  # 7 x 7 patches; the configuration has 2 x 1
        state["head.weight"] = torch.zeros(1000, 64)
        state |= {key.replace("__", "."): value for key, value in changes.items()}
        torch.save({key: value for key, value in state.items() if value is not None}, tmp_path / name)
        cfg.MODEL.BACKBONE.PRETRAIN = True
        cfg.MODEL.BACKBONE.PRETRAIN_PATH = str(tmp_path / name)

    return write


def contents(cfg, training: bool = True):
    """The findings on the files, then those on what is in them."""
    assets = check_assets(cfg, training)
    if any(finding.level != "ok" for finding in assets):
        return assets
    model = build_meta_model(fit_config(cfg, IDENTITIES, VIEWS))
    return [*assets, *check_asset_contents(cfg, assets, model, training)]


def test_a_vit_that_fits(cfg, vit, said):
    vit()
    text = said(contents(cfg), "ok", "pretrained backbone, contents")
    own = len(build_meta_model(fit_config(cfg, IDENTITIES, VIEWS)).backbone.state_dict())
    assert f"{own - 1} tensors fit; resampled: pos_embed" in text
    assert "left as initialised: view_prompt; left out: head.weight" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"norm__weight": torch.zeros(96)}, "norm.weight is (96,) instead of (64,)"),
        ({"norm__weight": None}, "norm.weight of shape (64,) is missing"),
        ({"blocks__3__norm1__weight": torch.zeros(64)}, "the encoder has no blocks.3.norm1.weight"),
        ({"pos_embed": torch.zeros(1, 8, 64)}, "pos_embed has 7 patches"),
    ],
)
def test_a_vit_that_does_not_fit(cfg, vit, said, changes, expected):
    vit(**changes)
    assert expected in said(contents(cfg), "error", "pretrained backbone, contents")


def test_a_vit_that_is_missing_or_no_vit(cfg, vit, said, tmp_path):
    vit()
    (tmp_path / "vit.pth").write_text("<html>")
    assert "is a web page that was saved" in said(contents(cfg), "error", "pretrained backbone")
    (tmp_path / "vit.pth").unlink()
    text = said(contents(cfg), "error", "pretrained backbone")
    assert "vit.pth not found | download" in text
    assert "| download timm-format weights of width 64" in text


@pytest.fixture
def stage2(cfg, tmp_path):
    """The configuration of Stage 2, with a Stage-1 checkpoint; the keys of its model as written."""
    state = build_model(fit_config(cfg, IDENTITIES, VIEWS)).state_dict()
    torch.save({"model": state, "meta": {"stage": 1, "num_classes": IDENTITIES}}, tmp_path / "stage1.pth")
    cfg.use_method("SDReIDStage2")
    cfg.MODEL.WEIGHTS = str(tmp_path / "stage1.pth")
    return cfg


def test_a_stage_1_checkpoint_to_train_stage_2_from(stage2, said):
    text = said(contents(stage2), "ok", "weights, contents")
    model = build_meta_model(fit_config(stage2, IDENTITIES, VIEWS)).state_dict()
    new = sum(name.startswith("generator.") for name in model)
    assert (
        f"of SDReIDStage1; {len(model) - new} of {len(model)} parameters fit; from random values: {new}"
        in text
    )


def test_a_checkpoint_of_the_wrong_stage(stage2, said):
    assert "is a checkpoint of SDReIDStage1" in said(
        contents(stage2, training=False), "error", "weights, contents"
    )


def test_a_checkpoint_of_another_width_and_one_that_is_damaged(stage2, said, tmp_path):
    state = torch.load(tmp_path / "stage1.pth", weights_only=True)
    state["model"]["backbone.norm.weight"] = torch.zeros(96)
    torch.save(state, tmp_path / "stage1.pth")
    text = said(contents(stage2), "error", "weights, contents")
    assert "backbone.norm.weight (96,) instead of (64,)" in text
    (tmp_path / "stage1.pth").write_bytes((tmp_path / "stage1.pth").read_bytes()[:5000])
    assert "truncated or damaged" in said(contents(stage2), "error", "weights, contents")


@pytest.mark.parametrize(
    ("training", "expected"), [(True, "train SDReIDStage1 first"), (False, "check the path")]
)
def test_a_checkpoint_that_is_missing(stage2, said, training, expected):
    stage2.MODEL.WEIGHTS = "nowhere.pth"
    assert expected in said(contents(stage2, training), "error", "weights")


@pytest.fixture
def unet(stage2, tmp_path):
    """A UNet folder as diffusers writes it; the configuration names it."""
    folder = tmp_path / "unet"
    build_unet(stage2.MODEL.SDMODEL.UNET_CONFIG, 64).save_pretrained(folder)
    stage2.MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH = str(folder)
    return folder


def test_a_unet_folder_that_fits(stage2, unet, said):
    findings = contents(stage2)
    assert "width 64 as the backbone's features" in said(findings, "ok", "UNet folder")
    tensors = len(UNet2DConditionModel.from_pretrained(unet).state_dict())
    assert said(findings, "ok", "UNet folder, contents").startswith(f"{tensors} tensors fit")


def test_a_unet_whose_weights_are_torchs(stage2, unet, said):
    file = unet / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), unet / "diffusion_pytorch_model.bin")
    file.unlink()
    assert "tensors fit" in said(contents(stage2), "ok", "UNet folder, contents")


def test_an_evaluation_needs_no_unet_weights(stage2, unet, said):
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    assert "not found" in said(check_assets(stage2), "error", "UNet folder")
    findings = contents(stage2, training=False)
    assert "width 64" in said(findings, "ok", "UNet folder")
    assert not any(finding.check == "UNet folder, contents" for finding in findings)


def test_a_unet_of_another_width(stage2, unet, said):
    config = json.loads((unet / "config.json").read_text())
    (unet / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 768}))
    text = said(contents(stage2), "error", "UNet folder")
    assert "cross_attention_dim is 768 and its in_channels 4, but the backbone's features of width 64" in text


def test_unet_weights_that_are_not_those_of_their_config(stage2, unet, said):
    file = unet / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    save_file(state | {"conv_in.bias": torch.zeros(7)}, file)
    text = said(contents(stage2), "error", "UNet folder, contents")
    assert "0 of" in text
    assert "1 have another shape or type (conv_in.bias is (7,) instead of (32,))" in text
    del state["conv_out.bias"]
    save_file(state, file)
    assert "1 of" in said(contents(stage2), "error", "UNet folder, contents")
    file.write_bytes(file.read_bytes()[:3000])
    assert "cannot be read" in said(contents(stage2), "error", "UNet folder, contents")


def test_every_folder_of_stage_2_is_looked_at(stage2, unet, said, tmp_path):
    settings = stage2.MODEL.SDMODEL
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    settings.SCHEDULER_CONFIG.PRETRAINED_PATH = str(tmp_path / "scheduler")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("<html>")
    settings.FIRST_STAGE_CONFIG.PRETRAINED_PATH = str(tmp_path / "vae")
    findings = check_assets(stage2)
    assert "diffusion_pytorch_model.safetensors not found" in said(findings, "error", "UNet folder")
    assert "scheduler_config.json" in said(findings, "error", "scheduler folder")
    assert "a web page that was saved" in said(findings, "error", "VAE folder")
    assert said(findings, "ok", "weights")
