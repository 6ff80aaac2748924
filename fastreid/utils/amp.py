"""Mixed precision: the meaning of a configuration's AMP group on a device."""

from typing import Protocol

import torch

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class AmpSettings(Protocol):
    """``SOLVER.AMP`` or ``TEST.AMP``."""

    ENABLED: bool
    DTYPE: str


def amp_dtype(settings: AmpSettings, device: torch.device) -> torch.dtype | None:
    """Return the dtype to autocast to; None for float32, the CPU's only one."""
    return AMP_DTYPES[settings.DTYPE] if settings.ENABLED and device.type == "cuda" else None
