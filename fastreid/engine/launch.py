"""Starting one process for each GPU, on one machine or several."""

import contextlib
import ctypes
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fastreid.utils.errors import UserError

TIMEOUT = timedelta(minutes=30)  # of a collective: rank 0 may encode alone for a while
GRACE_SECONDS = 5.0  # between a failure and the killing of the other ranks


class WorkerError(RuntimeError):
    """A process of the run failed; the message holds its traceback."""


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

    One process a machine: in this one. Several: they are spawned here. They talk over NCCL with CUDA and
    over gloo without. Under torchrun (environment RANK, WORLD_SIZE, LOCAL_RANK) this process is one of them.

    Args:
        main: a module-level function.
        dist_url: ``tcp://HOST:PORT`` of machine 0; ``auto`` (one machine only) takes a free port.
        device: MODEL.DEVICE of the run.

    Raises:
        UserError: for arguments that do not fit the machine, and for a UserError in any process.
        WorkerError: if a process fails in another way. The first failure counts; it ends all processes.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        _run_under_torchrun(main, args, device)
        return
    if num_gpus_per_machine < 1 or num_machines < 1 or not 0 <= machine_rank < num_machines:
        raise UserError(
            f"--num-gpus {num_gpus_per_machine} --num-machines {num_machines} --machine-rank {machine_rank}:"
            f" expected at least 1 GPU and machine, and a rank from 0 to the number of machines - 1"
        )
    if num_machines > 1 and not re.fullmatch(r"tcp://.+:\d+", dist_url):
        raise UserError(
            f"--dist-url {dist_url!r}: several machines need tcp://HOST:PORT, an address of machine 0"
        )
    world_size = num_gpus_per_machine * num_machines
    if world_size == 1:
        main(*args)
        return
    _check_devices(num_gpus_per_machine, device)
    if num_gpus_per_machine == 1:
        _run_in_group(main, args, machine_rank, 0, world_size, dist_url, device)
        return
    _spawn(main, args, device, num_gpus_per_machine, num_machines, machine_rank, dist_url)


def uses_cuda(device: str) -> bool:
    """Whether MODEL.DEVICE `device` means CUDA on this machine."""
    return device != "cpu" and torch.cuda.is_available()


def _check_devices(processes: int, device: str) -> None:
    if device.startswith("cuda:"):
        raise UserError(
            f"MODEL.DEVICE {device!r} is one GPU, but the run has several processes; use cuda or auto"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("MODEL.DEVICE 'cuda': no CUDA device on this machine; use auto or cpu")
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
    num_machines: int,
    machine_rank: int,
    dist_url: str,
) -> None:
    context = mp.get_context("spawn")
    failures = context.SimpleQueue()
    store = None
    if not dist_url.startswith("tcp://"):  # the system chooses the port, and the parent keeps it open
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
        dist_url = f"store://127.0.0.1:{store.port}"
    world_size = processes * num_machines
    workers = []
    for local_rank in range(processes):
        rank = machine_rank * processes + local_rank
        settings = (rank, local_rank, world_size, dist_url, device, processes)
        workers.append(context.Process(target=_worker, args=(main, args, settings, failures)))
    with _forwarded_signals(workers):
        for worker in workers:
            worker.start()
        _wait(workers, failures)


def _worker(main: Callable[..., Any], args: tuple, settings: tuple, failures: Any) -> None:
    """Runs in a spawned process, and ends it with its exit code.

    At once, because an interpreter that winds down while threads of torch still run can be aborted, and
    an abort would look like a failure of work that is done.
    """
    code = _work(main, args, settings, failures)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _work(main: Callable[..., Any], args: tuple, settings: tuple, failures: Any) -> int:
    """The process's exit code; a failure is reported before the others notice it and fail in turn."""
    rank, local_processes = settings[0], settings[-1]
    os.setpgrp()  # Ctrl-C reaches the parent alone, which passes it on once
    _end_with_parent()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_processes))
    try:
        _join_group(*settings[:-1])
        main(*args)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as stopped:
        return stopped.code or 0
    except UserError as error:
        failures.put((rank, True, str(error)))
        return 2
    except Exception:
        failures.put((rank, False, traceback.format_exc()))
        return 1
    finally:
        if dist.is_initialized() and failures.empty():
            dist.destroy_process_group()
    return 0


def _join_group(rank: int, local_rank: int, world_size: int, dist_url: str, device: str) -> None:
    backend = "gloo"
    if uses_cuda(device):
        torch.cuda.set_device(local_rank)
        backend = "nccl"
    if dist_url.startswith("store://"):
        host, port = dist_url.removeprefix("store://").split(":")
        store = dist.TCPStore(host, int(port), is_master=False, timeout=TIMEOUT)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
    else:
        dist.init_process_group(
            backend, init_method=dist_url, rank=rank, world_size=world_size, timeout=TIMEOUT
        )


def _run_under_torchrun(main: Callable[..., Any], args: tuple, device: str) -> None:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    _check_devices(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), device)
    _run_in_group(main, args, rank, local_rank, world_size, "env://", device)


def _run_in_group(main: Callable[..., Any], args: tuple, *settings: Any) -> None:
    """Call `main` in this process, which is one of the group that `settings` (of `_join_group`) describe."""
    _join_group(*settings)
    try:
        main(*args)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise WorkerError(
            f"another process of the run has ended (its output tells why), and the connection to it is lost"
            f": {' '.join(str(error).split())[:120]}"
        ) from error
    dist.destroy_process_group()


def _wait(workers: list, failures: Any) -> None:
    """Wait for all; after a failure end the rest, then raise the first failure."""
    stopped = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # asked to stop, and did so cleanly
    while any(worker.is_alive() for worker in workers):
        if any(worker.exitcode not in (None, 0, *stopped) for worker in workers):
            break
        time.sleep(0.05)
    killed = [(rank, -worker.exitcode) for rank, worker in enumerate(workers) if (worker.exitcode or 0) < 0]
    _end(workers)
    for rank, number in killed:  # first, because what the other ranks report then is the lost connection
        if number in (signal.SIGINT, signal.SIGTERM):
            raise SystemExit(128 + number)
        name = signal.Signals(number).name
        raise WorkerError(
            f"process {rank} of the run was killed by {name}; SIGKILL often means too little memory"
        )
    if not failures.empty():
        rank, is_user_error, text = failures.get()
        raise UserError(text) if is_user_error else WorkerError(f"process {rank} of the run failed:\n{text}")
    for rank, worker in enumerate(workers):
        if worker.exitcode in stopped:
            raise SystemExit(worker.exitcode)
        if worker.exitcode:
            raise WorkerError(f"process {rank} of the run exited with code {worker.exitcode}")


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


@contextlib.contextmanager
def _forwarded_signals(workers: list) -> Iterator[None]:
    """SIGTERM and SIGINT to this process reach the workers, which stop cleanly; this one then ends."""

    def forward(number: int, frame: Any) -> None:
        for worker in workers:
            if worker.pid and worker.is_alive():
                os.kill(worker.pid, number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
