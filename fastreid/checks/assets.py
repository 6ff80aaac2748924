"""The files that a configuration names: that they are there, and their tensors beside those of the model."""

from torch import nn

from fastreid.checks.report import complaints
from fastreid.config import CfgNode
from fastreid.modeling import method_of
from fastreid.structures import Finding

WEIGHTS = "weights"  # the name of the asset that is MODEL.WEIGHTS


def check_assets(cfg: CfgNode, training: bool = True, weights_later: bool = False) -> list[Finding]:
    """Check that the files are there and their folders fit, without looking at their tensors.

    Args:
        weights_later: leave out MODEL.WEIGHTS.
    """
    findings: list[Finding] = []
    for asset in method_of(cfg).assets(cfg, training):
        if weights_later and asset.name == WEIGHTS:
            continue
        with complaints(asset.name) as found:
            found.append(Finding("ok", asset.name, asset.check()))
        findings += found
    return findings


def check_asset_contents(
    cfg: CfgNode, findings: list[Finding], model: nn.Module, training: bool = True
) -> list[Finding]:
    """Compare the tensors of the files that `check_assets` found good with the model's.

    Args:
        findings: those of `check_assets`.
        model: on the ``meta`` device.
    """
    good = {finding.check for finding in findings if finding.level == "ok"}
    contents: list[Finding] = []
    for asset in method_of(cfg).assets(cfg, training):
        if asset.name in good and asset.check_contents is not None:
            name = f"{asset.name}, contents"
            with complaints(name) as found:
                found.append(Finding("ok", name, asset.check_contents(model)))
            contents += found
    return contents
