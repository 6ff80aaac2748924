"""Starting one process for each GPU, on one machine or several, and what each of them does first."""

import atexit
import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from fastreid.engine.agent import GRACE_SECONDS, LOST, START, TIMEOUT, Address, run_agent
from fastreid.utils import comm
from fastreid.utils.env import share_cores
from fastreid.utils.errors import UserError, WorkerError
from fastreid.utils.launcher import check_meeting_point, launcher_place, started_by_launcher
from fastreid.utils.signals import end_with_parent, handle_stop_signals, let_stop_signals_through

STOP_SECONDS = 0.5  # for all ranks to get to their end; one may still wait for another, in an evaluation


def launch(
    main: Callable[..., Any],
    num_gpus_per_machine: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: tuple = (),
    device: str = "auto",
    max_restarts: int = 0,
) -> None:
    """Call `main(*args)` in every process of the run, with the process group set up.

    A single process: this one. Several, on one machine or more, or one that may be started again: torch's
    elastic agent starts them from here. They talk over NCCL with CUDA and over gloo without. Under torchrun
    (environment RANK, WORLD_SIZE, LOCAL_RANK) this process is one of them.

    Args:
        main: a module-level function.
        dist_url: ``tcp://HOST:PORT`` of machine 0; ``auto`` (one machine only) takes a free port.
        device: MODEL.DEVICE of the run.
        max_restarts: how often all processes are started again after one has failed or its machine was lost.
            Not after a UserError, and not when they were asked to stop. torchrun has its own number.

    Raises:
        UserError: for arguments that do not fit the machine, and for a UserError in any process.
        WorkerError: if a process fails in another way. The first failure counts, also one on another machine;
            it ends all processes.
        SystemExit: with 128 + its number after a signal.
    """
    if started_by_launcher():
        _run_under_torchrun(main, args, device)
        return
    if num_gpus_per_machine < 1 or num_machines < 1 or not 0 <= machine_rank < num_machines:
        raise UserError(
            f"--num-gpus {num_gpus_per_machine} --num-machines {num_machines} --machine-rank {machine_rank}:"
            f" expected at least 1 GPU and machine, and a rank from 0 to the number of machines - 1"
        )
    address = ("127.0.0.1", 0) if dist_url == "auto" and num_machines == 1 else _parse(dist_url)
    if num_gpus_per_machine * num_machines == 1 and not max_restarts:
        main(*args)
        return
    _check_devices(num_gpus_per_machine, device)
    workers = {"args": (main, args, device), "max_restarts": max_restarts, "monitor_interval": 0.1}
    workers["local_world_size"] = num_gpus_per_machine
    run_agent(_run_spawned, workers, num_machines, machine_rank, address)


def _parse(dist_url: str) -> tuple[str, int]:
    """``"tcp://HOST:PORT"`` -> (HOST, PORT)."""
    if re.fullmatch(r"tcp://.+:\d+", dist_url):
        with contextlib.suppress(ValueError):  # a port beyond 65535
            parts = urlsplit(dist_url)
            if parts.hostname and parts.port:
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


def _run_spawned(main: Callable[..., Any], args: tuple, device: str, address: Address) -> None:
    """Runs in a process that the agent has started."""
    os.setpgrp()  # Ctrl-C reaches the agent alone, which passes it on once
    handle_stop_signals(signal.SIG_DFL)
    share_cores(launcher_place().local_world_size)
    code: Any = 1
    try:
        _run(main, args, device, address)
        code = 0
    except SystemExit as stopped:
        code = stopped.code or 0
        if code:
            raise
    finally:  # at once: an interpreter that winds down while threads of torch still run can be aborted
        atexit.register(os._exit, code)


def _run_under_torchrun(main: Callable[..., Any], args: tuple, device: str) -> None:
    try:
        record(_run)(main, args, device)
    except SystemExit:
        attempt, last = (os.environ.get(f"TORCHELASTIC_{n}") for n in ("RESTART_COUNT", "MAX_RESTARTS"))
        if attempt == last:  # else torchrun would take it for a failure, and start the run again
            raise


def _run(main: Callable[..., Any], args: tuple, device: str, address: Address | None = None) -> None:
    """Call `main(*args)` in the process group that the environment describes.

    Args:
        address: of its store; None if the environment says that, too.

    Raises:
        WorkerError: if the connection to another process is lost. Not before its end can have been seen.
    """
    store = None
    try:
        end_with_parent(signal.SIGTERM)
        let_stop_signals_through()
        store = _join_process_group(device, address)
        main(*args)
    except SystemExit:
        if store is not None:  # all are asked to stop, and the end of one ends all
            comm.meet(store, "stopped", dist.get_world_size(), STOP_SECONDS)
        raise
    except Exception as error:
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            time.sleep(GRACE_SECONDS)
            raise WorkerError(f"{LOST}: {' '.join(str(error).split())[:120]}") from error
        raise
    dist.destroy_process_group()


def _join_process_group(device: str, address: Address | None) -> dist.Store:
    rank, world_size, local_rank, local_world_size = launcher_place()
    _check_devices(local_world_size, device)
    if address:
        store = dist.TCPStore(*address, is_master=False, timeout=TIMEOUT)
        store = dist.PrefixStore(os.environ[START], store)
    else:
        check_meeting_point()
        store, _, _ = next(dist.rendezvous("env://", rank, world_size, timeout=TIMEOUT))
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # earlier starts have left keys there
            store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    backend, own_device = "gloo", None
    if uses_cuda(device):
        backend, own_device = "nccl", torch.device("cuda", local_rank)
        torch.cuda.set_device(own_device)
    place = {"store": store, "rank": rank, "world_size": world_size, "device_id": own_device}
    dist.init_process_group(backend, timeout=TIMEOUT, **place)
    return store
