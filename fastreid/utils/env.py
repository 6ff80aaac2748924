"""Seeds, devices and versions."""

import logging
import random
import subprocess
from pathlib import Path

import numpy as np
import torch

from fastreid import __version__
from fastreid.utils.errors import UserError

logger = logging.getLogger(__name__)


def seed_all_rng(seed: int) -> None:
    """Seed Python, NumPy and torch (CPU and every CUDA device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def resolve_device(name: str) -> torch.device:
    """The device that ``MODEL.DEVICE`` means on this machine.

    ``auto`` is CUDA when there is a usable device, else the CPU with a warning.

    Raises:
        UserError: if CUDA is asked for by name and there is none, or the name is not a device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        logger.warning("No CUDA device found: running on the CPU (set MODEL.DEVICE cpu to say so yourself)")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"MODEL.DEVICE {name!r} is not a device: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"MODEL.DEVICE {name!r}: no CUDA device on this machine; use auto or cpu")
    return device


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
