"""Methods that take turns: their speed, memory and share of the device's peak."""

import statistics
import sys
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from tqdm import tqdm

from fastreid.utils.complexity import flop_counter, measure, seconds_of


class Compared(NamedTuple):
    """A method's measurements."""

    method: str
    rates: list[float]
    """Images per second of each repeat."""
    ratio: float
    """Its speed, by the median, over that of the first method compared."""
    peak_bytes: int
    peak_share: float
    """Operations per second, over those of a matrix product in its precision."""

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


def compare(
    methods: dict[str, Callable[[], None]],
    precisions: list[torch.dtype | None],
    batch_size: int,
    repeats: int,
    device: torch.device,
) -> list[Compared]:
    """Measure methods, which take turns; the first one is what the others are compared with."""
    flops, memory = {}, {}
    for name, method in methods.items():  # this also warms up
        method()
        with flop_counter() as counter:
            method()
        flops[name] = counter.get_total_flops()
        memory[name] = measure(method, device, repeats=0).peak_bytes
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in tqdm(range(repeats), unit="repeat", disable=not sys.stderr.isatty()):
        for name, method in methods.items():
            seconds[name].append(seconds_of(method, device))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    baseline = median[next(iter(methods))]
    return [
        Compared(
            name,
            [batch_size / value for value in seconds[name]],
            baseline / median[name],
            memory[name],
            flops[name] / median[name] / matmul_peak(precision or torch.float32, device),
        )
        for name, precision in zip(methods, precisions, strict=True)
    ]


@cache
def matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Measure the floating point operations per second of a large matrix product, the best of ten."""
    size = matmul_size(device)
    factor = torch.randn(size, size, dtype=dtype, device=device)
    return 2 * size**3 / min(seconds_of(lambda: factor @ factor, device) for _ in range(10))


def matmul_size(device: torch.device) -> int:
    """Return the rows and columns of the matrices of `matmul_peak`."""
    return 8192 if device.type == "cuda" else 1024
