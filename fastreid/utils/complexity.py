"""The cost of a model: parameters, floating point operations, memory, time."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fastreid.utils.env import peak_memory


class ParameterCount(NamedTuple):
    """Numbers in the parameters of one part of a model."""

    part: str
    total: int
    trainable: int


class Measurement(NamedTuple):
    """Time and memory of some work."""

    seconds: list[float]
    """Of each repeat."""
    peak_bytes: int
    """CUDA: most bytes in tensors, weights included. CPU: most bytes that the process held."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def fake_tensors() -> Any:
    """Return torch's mode in which tensors have no numbers.

    They pretend to be the CPU's: ``meta`` ones do not say what autocast asks.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # slow to import

    return FakeTensorMode(allow_non_fake_inputs=True)


def part_names(model: nn.Module, opened: Iterable[str] = ()) -> list[str]:
    """The names of the model's children; those in `opened` are replaced by their own children."""
    names = []
    for name, child in model.named_children():
        names += [f"{name}.{inner}" for inner, _ in child.named_children()] if name in opened else [name]
    return names


def count_parameters(model: nn.Module, parts: Iterable[str] = ()) -> list[ParameterCount]:
    """The parameters of each part, then of the whole model; one that is shared counts once in each row."""

    def count(name: str, module: nn.Module) -> ParameterCount:
        parameters = list(module.parameters())
        trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        return ParameterCount(name, sum(parameter.numel() for parameter in parameters), trainable)

    return [count(name, model.get_submodule(name)) for name in parts] + [count("total", model)]


@contextmanager
def flop_counter() -> Iterator[FlopCounterMode]:
    """Counts the floating point operations of the block, as `count_flops` says.

    Attention runs as matrix products, which are counted on every device and by every version of torch.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


@torch.no_grad()
def count_flops(model: nn.Module, *args: Any, parts: Iterable[str] = ()) -> dict[str, int]:
    """Floating point operations of ``model(*args)``, in each part and in ``total``.

    Counted are matrix products, convolutions and attention, a multiplication and an addition as two;
    not what works element by element (normalisation, activations, softmax). That is what torch's
    FlopCounterMode counts. Tensors on the ``meta`` device will do: then nothing is computed.
    """
    with flop_counter() as counter:
        model(*args)
    counts = counter.get_flop_counts()
    name = type(model).__name__
    flops = {part: sum(counts.get(f"{name}.{part}", {}).values()) for part in parts}
    return flops | {"total": counter.get_total_flops()}


def measure(work: Callable[[], object], device: torch.device, repeats: int) -> Measurement:
    """Do `work` once to warm up, which also gives the peak memory, then `repeats` times on the clock."""
    on_gpu = device.type == "cuda"
    torch.cuda.reset_peak_memory_stats(device) if on_gpu else reset_peak_memory()
    work()
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else peak_memory()
    return Measurement([seconds_of(work, device) for _ in range(repeats)], peak)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Measure how long `work` takes, including what it leaves queued on a CUDA device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def reset_peak_memory() -> None:
    """Let the process's peak memory begin anew, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
