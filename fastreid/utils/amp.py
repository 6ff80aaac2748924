"""Mixed precision: what a configuration's AMP group means on a device."""

import torch

from fastreid.config import CfgNode

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def amp_dtype(settings: CfgNode, device: torch.device) -> torch.dtype | None:
    """The autocast dtype of ``SOLVER.AMP`` or ``TEST.AMP``; None for float32, the CPU's only one."""
    return AMP_DTYPES[settings.DTYPE] if settings.ENABLED and device.type == "cuda" else None
