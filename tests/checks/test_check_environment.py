"""Versions, device, compiled kernels and faiss."""

import importlib.util
from importlib import metadata

import pytest
import torch
from packaging.requirements import Requirement

from fastreid.checks import check_environment, environment
from fastreid.config import get_cfg


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    return cfg


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_versions_are_those_that_are_installed(cfg, said):
    text = said(check_environment(cfg), "ok", "packages")
    assert f"torch {metadata.version('torch')}" in text
    assert f"timm {metadata.version('timm')}" in text


@pytest.fixture
def wanted(monkeypatch):
    return lambda *texts: monkeypatch.setattr(
        environment, "requirements", lambda: [Requirement(t) for t in texts]
    )


def test_a_package_that_is_too_old(cfg, wanted, said):
    wanted("torch>=999", "numpy>=1")
    text = said(check_environment(cfg), "warning", "packages")
    assert text.startswith(f"torch {metadata.version('torch')} is installed, expected torch>=999")
    assert text.endswith('| pip install --upgrade "torch>=999"')


def test_a_package_that_is_missing(cfg, wanted, said):
    wanted("no-such-package>=2")
    text = said(check_environment(cfg), "error", "packages")
    assert text == 'no-such-package is not installed | pip install "no-such-package>=2"'


@pytest.mark.parametrize(("stage", "level"), [(1, "warning"), (2, "error")])
def test_what_only_stage_2_needs(cfg, wanted, said, monkeypatch, stage, level):
    wanted("diffusers>=0.30")

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    cfg.use_method(f"SDReIDStage{stage}")
    assert "diffusers is not installed" in said(check_environment(cfg), level, "packages")


def test_optional_packages_are_not_missed(cfg, wanted):
    wanted("faiss-cpu>=999", "cython>=999")
    assert [f.level for f in check_environment(cfg) if f.check == "packages"] == ["ok"]


def test_the_requirements_are_the_files_own():
    names = {requirement.name for requirement in environment.requirements()}
    assert {"torch", "timm", "diffusers", "faiss-cpu"} <= names


def test_auto_without_a_gpu_and_a_gpu_that_is_not_there(cfg, said, monkeypatch, one_thread):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg.MODEL.DEVICE = "auto"
    assert "running on the CPU" in said(check_environment(cfg), "warning", "device")
    assert said(check_environment(cfg), "ok", "device").startswith("CPU with")
    cfg.MODEL.DEVICE = "cuda"
    assert "no CUDA device" in said(check_environment(cfg), "error", "device")


@pytest.mark.parametrize(("threads", "load", "level"), [(4, 3.0, "warning"), (4, 0.5, "ok"), (1, 9.0, "ok")])
def test_more_threads_than_free_cores(cfg, said, monkeypatch, threads, load, level):
    monkeypatch.setattr(environment, "available_cores", lambda: 4)
    monkeypatch.setattr(environment.torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(environment.os, "getloadavg", lambda: (load, load, load))
    text = said(check_environment(cfg), level, "device")
    assert text.startswith("CPU with 4 cores")
    assert ("OMP_NUM_THREADS=1" in text) is (level == "warning")


@pytest.mark.parametrize(("module", "level"), [(object(), "ok"), (None, "warning")])
def test_compiled_kernels(cfg, said, monkeypatch, module, level):
    monkeypatch.setattr(environment, "rank_cy", module)
    text = said(check_environment(cfg), level, "rank kernels")
    assert ("build_ext --inplace" in text) is (level == "warning")


@pytest.mark.parametrize(
    ("settings", "level"),
    [({}, "ok"), ({"METRIC": "jaccard"}, "warning"), ({"RERANK": {"ENABLED": True}}, "warning")],
)
def test_faiss_is_missed_where_it_is_used(cfg, said, monkeypatch, settings, level):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "faiss" else find(name))
    cfg.TEST.merge_values(settings, "test")
    assert "not installed" in said(check_environment(cfg), level, "faiss")


class Properties:
    name = "Some GPU"
    total_memory = 24_000_000_000


@pytest.mark.parametrize(("capability", "level"), [(9, "ok"), (8, "ok"), (7, "warning")])
def test_a_gpu_and_its_mixed_precision(cfg, said, monkeypatch, capability, level):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    cfg.MODEL.DEVICE = "cuda"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    findings = check_environment(cfg, processes=2)
    assert not any(finding.level == "error" for finding in findings)
    assert "3 processes, but 2 CUDA devices" in said(check_environment(cfg, processes=3), "error", "device")
    assert "Some GPU, 24 GB" in said(findings, "ok", "device")
    if level == "warning":
        assert said(findings, "warning", "device").endswith("| SOLVER.AMP.DTYPE fp16")
