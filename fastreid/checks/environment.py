"""Python, packages, device and compiled kernels of this machine."""

import importlib.util
import os
import platform
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement

from fastreid.checks.report import complaints
from fastreid.config import CfgNode
from fastreid.evaluation.rank_cylib import rank_cy
from fastreid.modeling import META_ARCH_REGISTRY, method_of
from fastreid.structures import Finding
from fastreid.utils.env import available_cores, code_version, computes_in_bf16, resolve_device

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
OPTIONAL = {"faiss-cpu", "cython", "setuptools"}  # the first has a check of its own, the others build kernels
BUILD_KERNELS = "(cd fastreid/evaluation/rank_cylib && python setup.py build_ext --inplace)"


def check_environment(cfg: CfgNode, processes: int = 1) -> list[Finding]:
    """Check versions, device, compiled kernels and faiss, as far as `cfg` needs them; import nothing.

    Args:
        processes: of the run on this machine; each takes a GPU.
    """
    return [*_packages(cfg), *_device(cfg, processes), *_kernels(), *_faiss(cfg)]


def _packages(cfg: CfgNode) -> list[Finding]:
    with complaints("packages") as findings:
        present = [f"fastreid {code_version()}", f"Python {platform.python_version()}"]
        for wanted in requirements():
            name = wanted.name
            if name in OPTIONAL:
                continue
            try:
                version = metadata.version(name)
            except metadata.PackageNotFoundError:
                users = [user for user in META_ARCH_REGISTRY if name in META_ARCH_REGISTRY.get(user).packages]
                needed = not users or name in method_of(cfg).packages
                found = f"{name} is not installed" + ("" if needed else f", which {', '.join(users)} needs")
                level = "error" if needed else "warning"
                findings.append(Finding(level, "packages", found, f'pip install "{wanted}"'))
                continue
            if wanted.specifier.contains(version, prereleases=True):
                present.append(f"{name} {version}")
            else:
                found = f"{name} {version} is installed, expected {wanted}"
                findings.append(Finding("warning", "packages", found, f'pip install --upgrade "{wanted}"'))
        findings.append(Finding("ok", "packages", ", ".join(present)))
    return findings


def requirements() -> list[Requirement]:
    """Return what the package requires: a checkout's requirements.txt, else what the installation says."""
    if REQUIREMENTS.is_file():
        lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    else:
        lines = metadata.requires("fastreid") or []
    texts = (line.partition("#")[0].strip() for line in lines)
    wanted = [Requirement(text) for text in texts if text]
    return [each for each in wanted if each.marker is None or each.marker.evaluate()]


def _device(cfg: CfgNode, processes: int) -> list[Finding]:
    with complaints("device") as findings:
        device = resolve_device(cfg.MODEL.DEVICE)
        findings += _cuda(cfg, device, processes) if device.type == "cuda" else _cpu()
    return findings


def _cuda(cfg: CfgNode, device: torch.device, processes: int) -> list[Finding]:
    properties = torch.cuda.get_device_properties(device)
    found = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB (CUDA {torch.version.cuda})"
    findings = [Finding("ok", "device", found)]
    if processes > torch.cuda.device_count():
        found = f"{processes} processes, but {torch.cuda.device_count()} CUDA devices"
        fix = "fewer --num-gpus; CUDA_VISIBLE_DEVICES may hide some"
        findings.append(Finding("error", "device", found, fix))
    for key in ("SOLVER.AMP", "TEST.AMP"):
        settings = cfg.SOLVER.AMP if key == "SOLVER.AMP" else cfg.TEST.AMP
        if settings.ENABLED and settings.DTYPE == "bf16" and not computes_in_bf16(device):
            found = f"{key}.DTYPE is bf16, which {properties.name} does not compute in"
            findings.append(Finding("warning", "device", found, f"{key}.DTYPE fp16"))
    return findings


def _cpu() -> list[Finding]:
    cores, threads, load = available_cores(), torch.get_num_threads(), os.getloadavg()[0]
    found = f"CPU with {cores} cores, {threads} thread{'s' * (threads != 1)}"
    if load + threads > 1.5 * cores and threads > 1:
        found += f"; others keep {load:.1f} cores busy: threads that share cores wait for each other"
        return [Finding("warning", "device", found, "OMP_NUM_THREADS=1, or as many as there are free cores")]
    return [Finding("ok", "device", found)]


def _kernels() -> list[Finding]:
    if rank_cy is not None:
        return [Finding("ok", "rank kernels", "compiled")]
    found = "not compiled: evaluation counts in NumPy, which is slower"
    return [Finding("warning", "rank kernels", found, BUILD_KERNELS)]


def _faiss(cfg: CfgNode) -> list[Finding]:
    wanted = cfg.TEST.RERANK.ENABLED or cfg.TEST.METRIC == "jaccard"
    if importlib.util.find_spec("faiss") is not None:
        return [Finding("ok", "faiss", "installed")]
    if not wanted:
        return [Finding("ok", "faiss", "not installed; this configuration does not use it")]
    found = "not installed: re-ranking goes on with PyTorch, slower"
    return [Finding("warning", "faiss", found, "pip install faiss-cpu")]
