"""A model tried without numbers: what a run would stumble over is found, with the line that it is in."""

import inspect
from pathlib import Path

import pytest
from worlds.methods import PlainNet, SideNet, registered

from fastreid.checks import check_setup, summary
from fastreid.checks.memory import check_memory
from fastreid.checks.trial import try_model
from fastreid.config import CfgNode
from fastreid.modeling import META_ARCH_REGISTRY, MetaArch, build_meta_model, fit_config


class CrashingCheckpoint(PlainNet):
    def feature_parts(self):
        return {"person": self.no_such_width}


class CrashingStep(PlainNet):
    def losses(self, encoded, batch):
        return {"loss_cls": batch["no_such_label"]}


class UndeclaredLabel(SideNet):
    test_labels = frozenset()


class OtherWidth(PlainNet):
    def feature_parts(self):
        return {"person": 128}


class WholeLosses(PlainNet):
    def losses(self, encoded, batch):
        return {"loss_cls": encoded.features}


class Unlearnable(PlainNet):
    def losses(self, encoded, batch):
        return {"loss_cls": encoded.features.detach().mean()}


class NeedsNumbers(PlainNet):
    def losses(self, encoded, batch):
        mean = encoded.features.mean()
        return {"loss_cls": mean if mean.item() > 0 else -mean}


class CrashingRules(PlainNet):
    def parameter_rules(self):
        return super().parameter_rules()._replace(heads=["heads."])


METHODS = [PlainNet, SideNet, CrashingCheckpoint, CrashingStep, UndeclaredLabel, OtherWidth, WholeLosses]
METHODS += [Unlearnable, NeedsNumbers, CrashingRules]


@pytest.fixture(autouse=True, scope="module")
def toys():
    with registered(*METHODS):
        yield


@pytest.fixture
def toy(cfg):
    """`toy(method)`: the configuration of that method on the small CARGO."""

    def change(method: type[MetaArch]) -> CfgNode:
        cfg.use_method(method.__name__)
        cfg.MODEL.BACKBONE.NAME = "PooledPixels"
        cfg.SOLVER.WARMUP_ITERS = 5
        return cfg

    return change


def tried(cfg):
    model = build_meta_model(fit_config(cfg, 6, ("aerial", "ground")))
    return [*try_model(model.cfg, model), *check_memory(model.cfg, model)]


@pytest.mark.parametrize("method", ["PlainNet", "SideNet", "SDReIDStage1", "SDReIDStage2"])
def test_a_method_that_runs(cfg, toy, said, method):
    own = META_ARCH_REGISTRY.get(method)
    cfg = toy(own) if method in ("PlainNet", "SideNet") else cfg
    cfg.use_method(method)
    findings = tried(cfg)
    assert {finding.level for finding in findings} == {"ok"}
    width = {"PlainNet": 640, "SideNet": 640, "SDReIDStage1": 64, "SDReIDStage2": 3 * 64}[method]
    assert said(findings, "ok", "features").startswith(f"{width} numbers: person")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (CrashingCheckpoint, "the evaluation fails: AttributeError: .*no_such_width"),
        (CrashingStep, "the training step fails: KeyError: 'no_such_label'"),
        (UndeclaredLabel, "UndeclaredLabel reads the camids of a picture, and these have none"),
        (OtherWidth, r"features of OtherWidth gives a tensor \(2, 640\), but its feature_parts are .*128"),
        (WholeLosses, r"losses of WholeLosses gives 'loss_cls': a tensor \(8, 640\)"),
        (Unlearnable, "no loss of Unlearnable depends on what it trains"),
        (CrashingRules, "the checkpoint fails: TypeError"),
    ],
)
def test_a_method_that_would_crash(toy, said, method, message):
    import re

    assert re.search(message, said(tried(toy(method)), "error", "model"))


def test_the_line_of_code_is_named(toy, said):
    lines, first = inspect.getsourcelines(CrashingStep.losses)
    line = first + next(number for number, text in enumerate(lines) if "no_such_label" in text)
    assert f"({Path(__file__).name}, line {line})" in said(tried(toy(CrashingStep)), "error", "model")


def test_what_depends_on_numbers_is_not_tried_and_no_error(toy, said):
    findings = tried(toy(NeedsNumbers))
    assert "the training step is not tried: it depends on numbers" in said(findings, "warning", "model")
    assert not any(finding.level == "error" for finding in findings)


def test_a_model_that_crashes_at_its_first_checkpoint_cannot_run(toy):
    assert summary(check_setup(toy(PlainNet))).endswith("this configuration can run")
    assert summary(check_setup(toy(CrashingCheckpoint))).endswith("this configuration cannot run")
