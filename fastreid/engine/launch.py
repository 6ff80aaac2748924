"""Starting one process for each GPU, on one machine or several."""

import contextlib
import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fastreid.engine.failures import Failure, FailureBoard
from fastreid.utils.errors import UserError
from fastreid.utils.signals import let_stop_signals_through, stop_signals_held_back, stop_signals_to

TIMEOUT = timedelta(minutes=30)  # of a collective: one rank may be slow to encode, or to write
GRACE_SECONDS = 5.0  # between a failure and the killing of the other ranks
ASKED_TO_STOP = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of processes that did so cleanly


def launch(
    main: Callable[..., Any],
    num_gpus_per_machine: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: tuple = (),
    device: str = "auto",
) -> None:
    """Call `main(*args)` in every process of the run, with the process group set up.

    A single process: this one. Several, on one machine or more: they are spawned here. They talk over NCCL
    with CUDA and over gloo without. Under torchrun (environment RANK, WORLD_SIZE, LOCAL_RANK) this process is
    one of them.

    Args:
        main: a module-level function.
        dist_url: ``tcp://HOST:PORT`` of machine 0; ``auto`` (one machine only) takes a free port.
        device: MODEL.DEVICE of the run.

    Raises:
        UserError: for arguments that do not fit the machine, and for a UserError in any process.
        WorkerError: if a process fails in another way. The first failure counts, also one on another machine;
            it ends all processes.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        _run_under_torchrun(main, args, device)
        return
    if num_gpus_per_machine < 1 or num_machines < 1 or not 0 <= machine_rank < num_machines:
        raise UserError(
            f"--num-gpus {num_gpus_per_machine} --num-machines {num_machines} --machine-rank {machine_rank}:"
            f" expected at least 1 GPU and machine, and a rank from 0 to the number of machines - 1"
        )
    address = ("127.0.0.1", 0) if dist_url == "auto" and num_machines == 1 else _parse(dist_url)
    if num_gpus_per_machine * num_machines == 1:
        main(*args)
        return
    _check_devices(num_gpus_per_machine, device)
    _spawn(main, args, device, num_gpus_per_machine, num_machines, machine_rank, address)


def _parse(dist_url: str) -> tuple[str, int]:
    """``"tcp://HOST:PORT"`` -> (HOST, PORT)."""
    if re.fullmatch(r"tcp://.+:\d+", dist_url):
        with contextlib.suppress(ValueError):  # a port beyond 65535
            parts = urlsplit(dist_url)
            return parts.hostname, parts.port
    raise UserError(
        f"--dist-url {dist_url!r} is no address that several machines can reach",
        "give one of machine 0, as tcp://HOST:PORT",
    )


def uses_cuda(device: str) -> bool:
    """Tell whether MODEL.DEVICE `device` means CUDA on this machine."""
    return device != "cpu" and torch.cuda.is_available()


def _check_devices(processes: int, device: str) -> None:
    if device.startswith("cuda:"):
        raise UserError(f"MODEL.DEVICE {device!r} is one GPU for several processes", "use cuda or auto")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("MODEL.DEVICE 'cuda': no CUDA device on this machine", "use auto or cpu")
    if uses_cuda(device) and processes > torch.cuda.device_count():
        raise UserError(
            f"--num-gpus {processes}, but this machine has {torch.cuda.device_count()} CUDA devices"
            f" (CUDA_VISIBLE_DEVICES may hide some)"
        )


def _spawn(
    main: Callable[..., Any],
    args: tuple,
    device: str,
    processes: int,
    machines: int,
    machine_rank: int,
    address: tuple[str, int],
) -> None:
    """Start this machine's processes and wait for them. Machine 0 holds the store at which all meet."""
    context = mp.get_context("spawn")
    failures = context.SimpleQueue()
    store = _listen(address) if machine_rank == 0 else None
    if store is not None and address[1] == 0:
        address = address[0], store.port
    first_rank = machine_rank * processes
    workers = []
    for local_rank in range(processes):
        settings = (first_rank + local_rank, local_rank, processes * machines, address, device)
        workers.append(context.Process(target=_worker, args=(main, args, settings, processes, failures)))
    board = FailureBoard(address, store) if machines > 1 else None
    with _forwarded_signals(workers):
        with stop_signals_held_back():
            for worker in workers:
                worker.start()
        try:
            failure = _wait(workers, failures, first_rank, board)
            if failure and board:
                failure = board.first(failure)
        finally:
            _end(workers)
            if board:
                board.settle(machines)
    if failure:
        raise failure.exception()


def _listen(address: tuple[str, int]) -> dist.TCPStore:
    """The store of the run. In this process, which outlives the workers; with port 0 at a free one."""
    try:
        return dist.TCPStore(*address, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
    except RuntimeError as error:  # in newer versions of torch a DistError, which is one
        raise UserError(
            f"--dist-url tcp://{address[0]}:{address[1]}: this machine cannot listen there"
            f" ({' '.join(str(error).split())[:120]})",
            "give an address of machine 0 and a free port",
        ) from error


def _worker(main: Callable[..., Any], args: tuple, settings: tuple, processes: int, failures: Any) -> None:
    """Runs in a spawned process, and ends it with its exit code.

    At once, because an interpreter that winds down while threads of torch still run can be aborted, and
    an abort would look like a failure of work that is done.
    """
    os.setpgrp()  # Ctrl-C reaches the parent alone, which passes it on once
    _end_with_parent()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    code = _work(main, args, settings, failures)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _work(main: Callable[..., Any], args: tuple, settings: tuple, failures: Any) -> int:
    """The process's exit code; a failure is reported before the others notice it and fail in turn."""
    code = 0
    try:
        let_stop_signals_through()
        rank, local_rank, world_size, address, device = settings
        store = dist.TCPStore(*address, is_master=False, timeout=TIMEOUT)
        _init_process_group(store, rank, local_rank, world_size, device)
        main(*args)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as stopped:
        code = stopped.code or 0
    except Exception as error:
        failures.put(Failure.of(settings[0], error))
        return 1
    if dist.is_initialized():
        dist.destroy_process_group()
    return code


def _init_process_group(store: dist.Store, rank: int, local_rank: int, world_size: int, device: str) -> None:
    backend, own_device = "gloo", None
    if uses_cuda(device):
        backend, own_device = "nccl", torch.device("cuda", local_rank)
        torch.cuda.set_device(own_device)
    place = {"store": store, "rank": rank, "world_size": world_size, "device_id": own_device}
    dist.init_process_group(backend, timeout=TIMEOUT, **place)


def _run_under_torchrun(main: Callable[..., Any], args: tuple, device: str) -> None:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    _check_devices(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), device)
    store, _, _ = next(dist.rendezvous("env://", rank, world_size, timeout=TIMEOUT))
    _init_process_group(store, rank, int(os.environ.get("LOCAL_RANK", "0")), world_size, device)
    try:
        main(*args)
    except Exception as error:
        own = Failure.of(rank, error)
        first = FailureBoard(store=store).first(own)
        if own.kind == "lost":
            raise first.exception() from error
        raise
    dist.destroy_process_group()


def _wait(workers: list, failures: Any, first_rank: int, board: FailureBoard | None) -> Failure | None:
    """Wait until all are done or one has failed; the first failure that is no mere consequence.

    Raises:
        SystemExit: if processes stopped because they were asked to.
    """
    elsewhere = None
    while any(worker.is_alive() for worker in workers) and not elsewhere:
        if any(worker.exitcode not in (None, 0, *ASKED_TO_STOP) for worker in workers):
            break
        time.sleep(0.05)
        elsewhere = board.look() if board else None
    return elsewhere or _failure_here(workers, failures, first_rank)


def _failure_here(workers: list, failures: Any, first_rank: int) -> Failure | None:
    reported: list[Failure] = []
    while not failures.empty():
        reported.append(failures.get())
    for rank, worker in enumerate(workers, start=first_rank):
        code = worker.exitcode or 0
        if -code in (signal.SIGINT, signal.SIGTERM):
            raise SystemExit(128 - code)
        if code < 0:  # before what is reported, because the other ranks report the lost connection
            name = signal.Signals(-code).name
            text = f"process {rank} of the run was killed by {name}; SIGKILL often means too little memory"
            return Failure("fault", text)
    if reported:
        return next((failure for failure in reported if failure.kind != "lost"), reported[0])
    for rank, worker in enumerate(workers, start=first_rank):
        if worker.exitcode in ASKED_TO_STOP:
            raise SystemExit(worker.exitcode)
        if worker.exitcode:
            return Failure("fault", f"process {rank} of the run exited with code {worker.exitcode}")
    return None


def _end(workers: list) -> None:
    """Give the workers that are still running some seconds, then kill them."""
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
    for worker in workers:
        if worker.is_alive():
            worker.kill()
        worker.join()


def _end_with_parent() -> None:
    """Linux: ask for SIGTERM when the parent dies, so that a killed run leaves no process behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _forwarded_signals(workers: list) -> contextlib.AbstractContextManager[None]:
    """SIGTERM and SIGINT to this process reach the workers, which stop cleanly; this one then ends."""

    def forward(number: int, frame: Any) -> None:
        for worker in workers:
            if worker.pid and worker.is_alive():
                os.kill(worker.pid, number)

    return stop_signals_to(forward)
