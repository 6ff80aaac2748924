"""The comparison of exported files with PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastreid.structures import ExportPart, Tensors
from fastreid.utils.errors import UserError

MIN_COSINE = 0.9999
BATCH_SIZES = (1, 3, 8)


class Agreement(NamedTuple):
    """The agreement of one output of a file with PyTorch at one batch size."""

    file: str
    output: str
    batch_size: int
    cosine: float
    """The smallest of the batch."""
    difference: float
    """The largest absolute one."""


def check_part(part: ExportPart, file: str, run: Callable[[Tensors], list[Tensor]]) -> list[Agreement]:
    """Compare `run`, which is how the file computes, with the module at every one of `BATCH_SIZES`.

    Raises:
        UserError: if a cosine is below `MIN_COSINE`, or a shape differs.
    """
    agreements = []
    for batch_size in BATCH_SIZES:
        inputs = part.draw_inputs(batch_size)
        with torch.no_grad():
            expected = part.module(*inputs.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        for output, ours, theirs in zip(part.outputs, expected, run(inputs), strict=True):
            agreements.append(Agreement(file, output, batch_size, *compare(ours, theirs)))
            cosine = agreements[-1].cosine
            if not cosine >= MIN_COSINE:  # NaN too
                raise UserError(
                    f"{file} does not compute what PyTorch does: its {output} has a cosine of {cosine:.6f}"
                    f" at batch size {batch_size}, expected at least {MIN_COSINE}. Nothing was written",
                    "try other versions of torch, onnxscript and onnxruntime",
                )
    return agreements


def compare(expected: Tensor, actual: Tensor) -> tuple[float, float]:
    """Return the smallest cosine of any item and the largest absolute difference; NaN when shapes differ."""
    if expected.shape != actual.shape:
        return float("nan"), float("nan")
    cosine = torch.cosine_similarity(expected.flatten(1).double(), actual.flatten(1).double(), dim=1)
    return cosine.min().item(), (expected - actual).abs().max().item()


def onnx_session(path: Path) -> Any:
    """Open an onnxruntime session on the CPU with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_onnx(session: Any, inputs: Tensors) -> list[Tensor]:
    arrays = {name: value.numpy() for name, value in inputs.items()}
    return [torch.from_numpy(output) for output in session.run(None, arrays)]


def run_pt2(program: nn.Module, inputs: Tensors) -> list[Tensor]:
    outputs = program(*inputs.values())
    return list(outputs) if isinstance(outputs, tuple) else [outputs]
