"""The memory that a training takes: counted where it can be, else estimated without computing anything."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from fastreid.checks.trial import attempt, training_step
from fastreid.config import CfgNode
from fastreid.engine.memory import memory_advice
from fastreid.modeling import MetaArch
from fastreid.structures import Finding
from fastreid.utils.complexity import count_parameters, fake_tensors
from fastreid.utils.env import AMP_DTYPES, resolve_device

MEMINFO = Path("/proc/meminfo")
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
FULL = 0.9  # share of the memory from which on the estimate is a warning


class TrainingMemory(NamedTuple):
    """Bytes that one process holds while it trains."""

    model: int
    """Parameters and buffers, exact."""
    gradients: int
    """Of the parameters that train, exact."""
    optimizer: int
    """Its running means, exact but for a few numbers."""
    activations: int
    """What the forward pass keeps for the backward pass: an estimate, see `activation_bytes`."""

    @property
    def total(self) -> int:
        return sum(self)


def training_memory(cfg: CfgNode, model: MetaArch, world_size: int = 1) -> TrainingMemory:
    """Estimate the memory of one training process.

    Args:
        model: on the ``meta`` device, as `build_meta_model` makes it; it is changed.
        world_size: processes that share a batch.

    Raises:
        Exception: whatever the model raises in a training step.
    """
    trained = _bytes(p for p in model.parameters() if p.requires_grad)
    return TrainingMemory(
        model=_bytes(model.parameters()) + _bytes(model.buffers()),
        gradients=trained,
        optimizer=cfg.entry("SOLVER.OPT").state_copies(cfg) * trained,
        activations=activation_bytes(cfg, model, cfg.SOLVER.IMS_PER_BATCH // world_size),
    )


def activation_bytes(cfg: CfgNode, model: MetaArch, batch_size: int) -> int:
    """Estimate the bytes of the tensors that autograd keeps from one training step of `batch_size` images.

    The step runs on tensors without numbers. They pretend to be the CPU's: other kernels keep a little more
    or less, and the largest intermediate results of the backward pass come on top. Gradient checkpointing is
    not seen inside.

    Args:
        model: on the ``meta`` device; it is moved to the fake one.
    """
    use_amp = cfg.SOLVER.AMP.ENABLED and resolve_device(cfg.MODEL.DEVICE).type == "cuda"
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes(), tensor  # with the tensor, so that the address stays its own
        return tensor

    with fake_tensors():
        model = model.to_empty(device="cpu").train()
        dtype = AMP_DTYPES[cfg.SOLVER.AMP.DTYPE]
        with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", dtype, enabled=use_amp):
            total = training_step(cfg, model, batch_size)
    del total
    for tensor in (*model.parameters(), *model.buffers()):
        kept.pop(tensor.untyped_storage()._cdata, None)
    return sum(size for size, _ in kept.values())


def check_memory(
    cfg: CfgNode, model: MetaArch, processes: int = 1, training: bool = True, machines: int = 1
) -> list[Finding]:
    """Give the size of the model and, for training, the memory of a process beside what the machine has.

    That takes a training step, whose failure is an error.

    Args:
        cfg: the model's own.
        model: on the ``meta`` device; it is changed.
        processes: of the run on this machine.
        machines: of the run, each with as many processes.
    """
    (count,) = count_parameters(model)
    findings = [Finding("ok", "parameters", f"{count.total:,}, of which {count.trainable:,} train")]
    if not training:
        return findings
    with attempt("training step") as found:
        needed = training_memory(cfg, model, processes * machines)
        parts = [f"{name} {_gigabytes(size)}" for name, size in needed._asdict().items()]
        text = f"about {_gigabytes(needed.total)} a process ({', '.join(parts)})"
        available, where, sharing = _available(resolve_device(cfg.MODEL.DEVICE), processes)
        text += f"; {where} has {_gigabytes(available)}"
        if needed.total * sharing > FULL * available:
            found.append(Finding("warning", "memory", text, memory_advice(cfg, processes * machines)))
        else:
            found.append(Finding("ok", "memory", text))
    return findings + found


def _available(device: torch.device, processes: int) -> tuple[int, str, int]:
    """Return the bytes that are there, what has them, and how many processes share them."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1], "the GPU", 1
    return free_main_memory(), "the machine", processes


def free_main_memory(proc: Path = MEMINFO, limit: Path = CONTAINER_LIMIT) -> int:
    """Return the bytes of main memory that are available, or that the container may use if less."""
    lines = proc.read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(free, int(text)) if text.isdecimal() else free


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
