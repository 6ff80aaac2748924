"""Seeds, devices, precision, memory and versions."""

import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastreid import __version__
from fastreid.utils.errors import UserError
from fastreid.utils.logger import warn_once

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def seed_all_rng(seed: int) -> None:
    """Seed Python, NumPy and torch (CPU and every CUDA device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The state of every random number generator, as plain containers and tensors.

    CUDA's is among them where the process computes on CUDA; asking for it would set up CUDA elsewhere.
    """
    name, keys, *rest = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what :func:`rng_state` returned."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def preserved_rng_state() -> Iterator[None]:
    """Random numbers drawn inside the block do not change those drawn after it."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def available_cores() -> int:
    """Count the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(name: str) -> torch.device:
    """The device that ``MODEL.DEVICE`` means on this machine.

    ``auto`` is CUDA when there is a usable device, else the CPU with a warning.

    Raises:
        UserError: if the name is not a device, or one of CUDA that this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        warn_once(__name__, "No CUDA device found: running on the CPU (MODEL.DEVICE cpu asks for that)")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"MODEL.DEVICE {name!r} is not a device", "use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"MODEL.DEVICE {name!r}: no CUDA device on this machine", "use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"MODEL.DEVICE {name!r}: this machine has {count} CUDA device(s), counted from 0")
    return device


def use_device(name: str) -> torch.device:
    """The device that ``MODEL.DEVICE`` means; a CUDA device of a certain number becomes the current one.

    Raises:
        UserError: as `resolve_device`.
    """
    device = resolve_device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy `values` to `device` without waiting for it.

    CUDA copies at its leisure from pinned memory alone; before it reads other memory of the CPU it may finish
    what it has been given so far.
    """
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def share_cores(processes: int) -> None:
    """Leave this process its share of the cores, of as many on this machine, unless OMP_NUM_THREADS says."""
    if processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def computes_in_bf16(device: torch.device) -> bool:
    """Tell whether `device` has bf16 in hardware, as CUDA's have from Ampere on; older ones emulate it."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] >= 8


def amp_dtype(settings: Any, device: torch.device, enabled: bool | None = None) -> torch.dtype | None:
    """Return the dtype of autocast on `device` by ``SOLVER.AMP`` or ``TEST.AMP``; None: float32.

    Training has it on CUDA alone, evaluation on ``TEST.AMP.DEVICES``.

    Args:
        enabled: stands in for the settings' ``ENABLED``.
    """
    enabled = settings.ENABLED if enabled is None else enabled
    return (
        AMP_DTYPES[settings.DTYPE] if enabled and device.type in settings.get("DEVICES", ["cuda"]) else None
    )


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """In the block what runs on `device` computes in mixed precision; None: in the precision that it has."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


@contextmanager
def cudnn_kernels(benchmark: bool) -> Iterator[None]:
    """In the block cuDNN chooses its kernels by time, or else such as always give the same result.

    Torch's own `cudnn.flags` would set the precision of float32 as well.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = benchmark, not benchmark
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def exact_float32() -> Iterator[None]:
    """In the block float32 is float32 on CUDA, too: no TF32 in matrix products and convolutions.

    TF32 keeps 10 bits of the mantissa, so that results would depend on the kernels chosen for a batch size.
    Both of torch's interfaces say so in the block, because torch refuses to answer where they disagree;
    afterwards each says what it said before.
    """
    places = _float32_precisions()
    before = [place.fp32_precision for place in places]
    for place in places:
        if place.fp32_precision != "ieee":  # what inherits has it already, and goes on inheriting
            place.fp32_precision = "ieee"
    products, convolutions = torch.get_float32_matmul_precision(), _convolutions_may_use_tf32()
    try:
        if products != "highest":
            torch.set_float32_matmul_precision("highest")
        if convolutions:
            torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        if convolutions:  # (they started by following a parent set later, which nobody can set again)
            torch.backends.cudnn.allow_tf32 = True
        if products != "highest":
            torch.set_float32_matmul_precision(products)
        for place, precision in zip(places, before, strict=True):
            if place.fp32_precision != precision:
                place.fp32_precision = precision


def _float32_precisions() -> list[Any]:
    """Return what has an `fp32_precision`, parents before what inherits from them; nothing in older torch."""
    backends = torch.backends
    if not hasattr(backends, "fp32_precision"):
        return []
    products, gpu, cpu = backends.cuda.matmul, backends.cudnn, backends.mkldnn
    return [backends, gpu, products, gpu.conv, gpu.rnn, cpu.matmul, cpu.conv, cpu.rnn]


def _convolutions_may_use_tf32() -> bool:
    """Return the older interface's answer, also where torch refuses it, as the newer one says no already."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return True


def peak_memory() -> int:
    """Return the highest resident size of the process in bytes, since a reset where that works (Linux)."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@cache
def code_version() -> str:
    """The package version, with the git commit when the code runs from a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return __version__
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{described.strip()}"
