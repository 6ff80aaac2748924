"""The pretrained files of a configuration: names and shapes of their tensors beside those of the model."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from fastreid.checks.report import Finding, complaints
from fastreid.config import CfgNode
from fastreid.modeling.assets import asset_checks
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.backbones.pretrained import fit_pretrained_vit
from fastreid.modeling.meta_arch.sdreid.unet_weights import check_unet_weights
from fastreid.utils.checkpoint import check_model_weights, check_stage, load_checkpoint


def check_assets(cfg: CfgNode, training: bool = True) -> list[Finding]:
    """Whether the files are there and their folders fit, without looking at their tensors."""
    findings: list[Finding] = []
    for name, check in asset_checks(cfg, training):
        with complaints(name) as found:
            found.append(Finding("ok", name, check()))
        findings += found
    return findings


def check_asset_contents(
    cfg: CfgNode, findings: list[Finding], model: nn.Module | None, training: bool = True
) -> list[Finding]:
    """Compare the tensors of the files that `check_assets` found good with the model's.

    Args:
        findings: those of `check_assets`.
        model: on the ``meta`` device; None, where it cannot be built, leaves out what depends on it.
    """
    inside: dict[str, Callable[[], str]] = {"ViT weights": lambda: _vit(cfg)}
    if model is not None:
        inside["weights"] = lambda: _weights(cfg, model, training)
        if training:
            inside["UNet folder"] = lambda: _unet(cfg.MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH, model)
    contents: list[Finding] = []
    for finding in findings:
        if finding.level == "ok" and finding.check in inside:
            name = f"{finding.check}, contents"
            with complaints(name) as found:
                found.append(Finding("ok", name, inside[finding.check]()))
            contents += found
    return contents


def _vit(cfg: CfgNode) -> str:
    with torch.device("meta"):
        backbone = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg)
    _, report = fit_pretrained_vit(backbone, cfg.MODEL.BACKBONE.PRETRAIN_PATH)
    return report.summary().replace("loaded", "fit", 1)


def _weights(cfg: CfgNode, model: nn.Module, training: bool) -> str:
    path, purpose = cfg.MODEL.WEIGHTS, "train" if training else "eval"
    checkpoint = load_checkpoint(path)
    check_stage(checkpoint["meta"], model, purpose, path)
    partial = cfg.MODEL.ALLOW_PARTIAL_WEIGHTS
    report = check_model_weights(model, checkpoint["model"], purpose, partial, path)
    stage = checkpoint["meta"].get("stage")
    parts = [f"of Stage {stage}"] if stage else []
    parts.append(f"{len(report.loaded)} of {len(report.loaded) + len(report.missing)} parameters fit")
    for meaning, names in (
        ("from random values", report.missing),
        ("of another shape, left out", report.mismatched),
        ("not of this model, left out", report.unexpected),
    ):
        if names:
            parts.append(f"{meaning}: {len(names)}, such as {names[0]}")
    return "; ".join(parts)


def _unet(folder: str, model: nn.Module) -> str:
    check_unet_weights(model.generator.unet, folder)
    return f"{len(model.generator.unet.state_dict())} tensors fit {Path(folder) / 'config.json'}"
