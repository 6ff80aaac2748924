"""Processes that share out work through a folder: no connection, and the death of one ends no other."""

import multiprocessing as mp
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch

from fastreid.engine.launch import uses_cuda
from fastreid.utils.env import share_cores
from fastreid.utils.errors import UserError
from fastreid.utils.launcher import launcher_place, started_by_launcher
from fastreid.utils.signals import (
    end_with_parent,
    let_stop_signals_through,
    start_resource_tracker,
    stop_signals_held_back,
    stop_signals_to,
)

START_METHOD = "spawn"  # CUDA allows no other
GRACE_SECONDS = 5.0  # for a process that is asked to stop


class Worker(NamedTuple):
    process: BaseProcess
    mistake: Connection
    """Gives the problem and the fix of a UserError that ended it."""


def run_shared(work: Callable[..., None], args: tuple, processes: int, device: str) -> bool:
    """Call ``work(*args)`` in new processes on this machine, each with a GPU of its own if there are any.

    Where torchrun started this process, or for one process, it is called here. `work` shares things out
    itself, such that what a killed process had is done by the others.

    Args:
        work: a module-level function.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        whether this process should tell the result: False for all but the first of torchrun's.

    Raises:
        UserError: for fewer GPUs than processes, from any of them, or if all of them were killed.
    """
    if started_by_launcher():
        place = launcher_place()
        _check(place.local_world_size, device)
        _begin(place.local_rank, device)
        work(*args)
        return place.rank == 0
    if processes == 1:
        work(*args)
        return True
    _check(processes, device)
    workers: list[Worker] = []
    try:
        start_resource_tracker()
        with stop_signals_held_back():
            workers += (_start(work, args, rank, processes, device) for rank in range(processes))
        _wait(workers)
    finally:
        _end(workers)
    return True


def _check(processes: int, device: str) -> None:
    if processes > 1 and device.startswith("cuda:"):
        raise UserError(f"--device {device} is one GPU for {processes} processes", "use auto or cuda")
    if uses_cuda(device) and processes > torch.cuda.device_count():
        problem = f"{processes} processes, but this machine has {torch.cuda.device_count()} CUDA devices"
        raise UserError(problem, "start no more than that, or use --device cpu")


def _start(work: Callable[..., None], args: tuple, rank: int, processes: int, device: str) -> Worker:
    context = mp.get_context(START_METHOD)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_worker, args=(work, args, rank, processes, device, sender))
    process.start()
    sender.close()
    return Worker(process, receiver)


def _worker(
    work: Callable[..., None], args: tuple, rank: int, processes: int, device: str, mistake: Connection
) -> None:
    """Run in a new process, which ends with its parent at the latest."""
    os.setpgrp()  # Ctrl-C reaches the parent alone, which then ends this one

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    with stop_signals_to(stop):
        end_with_parent(signal.SIGTERM)
        let_stop_signals_through()
        share_cores(processes)
        try:
            _begin(rank, device)
            work(*args)
        except UserError as error:
            mistake.send((error.problem, error.fix))
            raise SystemExit(2) from None


def _begin(local_rank: int, device: str) -> None:
    if uses_cuda(device) and not device.startswith("cuda:"):
        torch.cuda.set_device(local_rank)


def _wait(workers: list[Worker]) -> None:
    """Wait until all are done; one that fails, but for one that was killed, ends the work."""
    running = {worker.process.sentinel: worker for worker in workers}
    killed = 0
    while running:
        for sentinel in wait(list(running)):
            process, mistake = running.pop(sentinel)
            process.join()
            if process.exitcode < 0:
                killed += 1
                name = signal.Signals(-process.exitcode).name
                print(f"process {process.pid} was killed by {name}; others do its work", file=sys.stderr)
            elif process.exitcode:
                with suppress(EOFError):
                    raise UserError(*mistake.recv())
                raise SystemExit(process.exitcode)  # it has shown its traceback
    if killed == len(workers):
        raise UserError(
            "all processes were killed; SIGKILL often means too little memory", "run the same command again"
        )


def _end(workers: list[Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(GRACE_SECONDS)
        worker.process.kill()
        worker.process.join()
