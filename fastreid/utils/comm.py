"""Processes of a run among each other. Every function also works without a process group."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    return dist.get_world_size() if is_distributed() else 1


def get_rank() -> int:
    return dist.get_rank() if is_distributed() else 0


def is_main_process() -> bool:
    return get_rank() == 0


def synchronize() -> None:
    """Wait until every process got here."""
    if get_world_size() > 1:
        dist.barrier()


def all_gather_object(value: Any) -> list[Any]:
    """The picklable `value` of every rank, in rank order."""
    if get_world_size() == 1:
        return [value]
    gathered = [None] * get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast_object(value: Any, source: int = 0) -> Any:
    """The picklable `value` of rank `source`, on every rank."""
    if get_world_size() == 1:
        return value
    holder = [value]
    dist.broadcast_object_list(holder, src=source)
    return holder[0]


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of `tensor` over all ranks, in place; no gradient flows through it."""
    if get_world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


@torch.no_grad()
def broadcast_tensors(tensors: Iterable[torch.Tensor]) -> None:
    """Give every rank the numbers of rank 0, in place."""
    if get_world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)
