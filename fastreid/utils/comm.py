"""Processes of a run among each other. Every function also works without a process group."""

import itertools
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

BEAT = 1.0  # seconds between two signs of life of a rank that works alone
LOOK = 0.05  # seconds between two looks whether something is done

_turns = itertools.count()  # the same on all ranks, as they call `on_main_process` equally often
BEATS, DONE = "fastreid/main_process/beats", "fastreid/main_process/done"  # keys of the store


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


def on_main_process(work: Callable[[], T]) -> T:
    """Call `work` on rank 0 alone, and give every rank what it returns; it may take hours.

    The others do not wait in a collective, which has a timeout, but at the store of the process group. Rank 0
    gives signs of life there, so that the wait ends when rank 0 does, by whatever means the run was launched.

    Args:
        work: its result must be picklable.

    Raises:
        Exception: on every rank, what `work` raised; a RuntimeError in place of one that cannot be pickled.
        DistError: on the others, when rank 0 has been silent for the timeout of a collective.
    """
    if get_world_size() == 1:
        return work()
    store, turn = dist.distributed_c10d._get_default_store(), next(_turns)
    outcome: Any = None
    if is_main_process():
        with _signs_of_life(store, turn):
            try:
                outcome = work()
            except Exception as error:
                outcome = _picklable(error)
    else:
        _wait_for_main(store, turn)
    outcome = broadcast_object(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _picklable(error: Exception) -> Exception:
    """Return `error`, or where it cannot be sent what it says."""
    try:
        pickle.dumps(error)
    except Exception:  # pickling calls code of the object's own
        return RuntimeError(repr(error))
    return error


@contextmanager
def _signs_of_life(store: dist.Store, turn: int) -> Iterator[None]:
    """Count up in the store while the block runs, then say there that the turn is done."""
    done = threading.Event()

    def beat() -> None:
        with suppress(RuntimeError):  # without the store the next collective fails, and says why
            while not done.wait(BEAT):
                store.add(BEATS, 1)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        store.set(DONE, str(turn))


def _wait_for_main(store: dist.Store, turn: int) -> None:
    beats, heard = 0, time.monotonic()
    while not (store.check([DONE]) and int(store.get(DONE)) >= turn):
        found = store.add(BEATS, 0)
        if found != beats:
            beats, heard = found, time.monotonic()
        elif time.monotonic() - heard > store.timeout.total_seconds():
            raise dist.DistError(f"rank 0 has given no sign of life for {store.timeout}")
        time.sleep(LOOK)


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


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Tell whether `done` came true in time. It waits in Python, which signals interrupt."""
    deadline = time.monotonic() + seconds
    while not (is_done := done()) and time.monotonic() < deadline:
        time.sleep(LOOK)
    return is_done


def meet(store: dist.Store, key: str, members: int, seconds: float) -> None:
    """Wait until all members got here, but not longer, and not when the store is lost."""
    with suppress(RuntimeError):
        store.add(key, 1)
        wait_until(lambda: store.add(key, 0) >= members, seconds)
