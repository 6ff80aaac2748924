"""The program that starts a run's processes on one machine, watches them and starts them again.

It is torch's elastic agent, which meets those of the other machines and restarts all processes when one has
failed. Added here: every machine tells the first failure, nothing is restarted in vain, and signals reach the
processes, which stop cleanly.
"""

import json
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from tempfile import TemporaryDirectory
from threading import Thread
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from torch.distributed import Store, TCPStore
from torch.distributed.elastic.agent.server import WorkerSpec
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousError, RendezvousParameters, RendezvousTimeoutError
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler, create_handler

from fastreid.utils import comm
from fastreid.utils.errors import UserError, WorkerError
from fastreid.utils.logger import warn_once
from fastreid.utils.signals import (
    SAME_REQUEST,
    STOPPING,
    start_resource_tracker,
    stop_signals_held_back,
    stop_signals_to,
)

TIMEOUT = timedelta(minutes=30)  # of a collective, and of the wait for the other machines
STORE_TIMEOUT = timedelta(minutes=1)  # of what an agent that has met the others asks of the store
GRACE_SECONDS = 5.0  # in which the cause of a failure is seen before its consequences
LONGEST_TEXT = 8000  # characters of a traceback, the last ones
START = "FASTREID_START"  # environment variable: name of the part of the store that this start alone uses
LOST = "another process of the run has ended (its output tells why), and the connection to it is lost"

Address = tuple[str, int]


class Failure(NamedTuple):
    """The end of a process: `code` is 1 for a fault, 2 for a UserError, 128 + N for a stop on signal N."""

    code: int
    text: str = ""
    trace: str = ""

    @classmethod
    def of(cls, rank: int, failure: ProcessFailure) -> "Failure":
        """Describe the end of process `rank`, if it can from what torch's `record` wrote."""
        if isinstance(failure.message, dict):
            kind, _, text = failure.message["message"].partition(": ")
            trace = failure.message["extraInfo"]["py_callstack"][-LONGEST_TEXT:].rstrip()
            if kind in (UserError.__name__, WorkerError.__name__):
                return cls(2 if kind == UserError.__name__ else 1, text, trace)
            return cls(1, f"process {rank} of the run failed:\n{trace}", trace)
        code = failure.exitcode
        if code - 128 in STOPPING:
            return cls(code)  # the process has told it
        if -code in STOPPING:
            return cls(128 - code, f"stopped by {failure.signal_name()}")
        end = f"was killed by {failure.signal_name()}" if code < 0 else f"exited with code {code}"
        hint = "; SIGKILL often means too little memory" if signal.SIGKILL in (-code, code - 128) else ""
        return cls(1, f"process {rank} of the run {end}{hint}")

    def exception(self) -> BaseException:
        if self.code == 1:
            return WorkerError(self.text)
        return UserError(self.text) if self.code == 2 else SystemExit(self.code)


def _stop_at_once(number: int) -> NoReturn:
    print(f"stopped by {signal.Signals(number).name}: nothing to save", file=sys.stderr)
    raise SystemExit(128 + number)


class Agent(LocalElasticAgent):
    """The agent of machine `machine_rank`. `failure` is what has ended the run."""

    FAILURE, HERE, NAME = "fastreid/failure", "fastreid/machines", "fastreid/start"

    def __init__(self, machine_rank: int, restarts: int, spec: WorkerSpec, logs: DefaultLogsSpecs) -> None:
        super().__init__(spec, logs)
        self.machine_rank, self._remaining_restarts = machine_rank, restarts
        self.failure: Failure | None = None
        self._asked: tuple[int, float] | None = None  # the signal, and when it came
        self._told = ""  # the traceback of the last fault after which it went on

    def run(self, *role: str) -> RunResult:
        try:
            with stop_signals_to(self.stop):
                return super().run(*role)
        except SignalException as stopped:  # an older torch has handlers of its own while it starts processes
            _stop_at_once(stopped.sigval)
        finally:
            self._rdzv_handler._stop_heartbeats()  # a thread in torch at the end of Python would abort it

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on to the processes; end at once when there are none, or when it comes again."""
        group, now = self.get_worker_group(), time.monotonic()
        if group.state != WorkerState.HEALTHY:
            _stop_at_once(number)
        self._asked = self._asked or (number, now)
        again = now - self._asked[1] > SAME_REQUEST
        for worker in group.workers:
            with suppress(ProcessLookupError):
                os.kill(worker.id, signal.SIGKILL if again else number)
        if again:
            raise SystemExit(128 + number)

    def _assign_worker_ranks(self, store: Store, group_rank: int, *where: Any) -> Any:
        if store.add(f"fastreid/machine{self.machine_rank}", 1) > 1:
            problem = f"another machine of the run has --machine-rank {self.machine_rank}, too"
            raise UserError(problem, "give each its own, from 0 on")
        return super()._assign_worker_ranks(store, self.machine_rank, *where)

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        if self._asked:  # while torch stopped them for a machine that has come back
            raise SystemExit(128 + self._asked[0])
        self.failure = None
        os.environ[START] = worker_group.store.compare_set(self.NAME, "", uuid.uuid4().hex).decode()
        start_resource_tracker()
        # An older torch takes SIGQUIT, too, and keeps it.
        with stop_signals_to(self.stop, [signal.SIGQUIT]), stop_signals_held_back():
            return super()._start_workers(worker_group)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        """Look after the processes here, and whether another machine tells of a failure."""
        result, store = super()._monitor_workers(worker_group), worker_group.store
        if result.is_failed():
            own = Failure.of(*next(iter(result.failures.items())))
            store.compare_set(self.FAILURE, "", json.dumps(own))
        if result.state == WorkerState.SUCCEEDED or not store.check([self.FAILURE]):
            return result
        self.failure = Failure(*json.loads(store.get(self.FAILURE)))
        if self.failure.code == 1 and self._remaining_restarts > 0:
            self._tell_restart(self.failure)
            if self._asked:
                self.failure = Failure(128 + self._asked[0])
        if self.failure.code != 1:
            self._remaining_restarts = 0
        if self._remaining_restarts == 0:
            self._exit_barrier(GRACE_SECONDS)
        return RunResult(WorkerState.FAILED, failures=result.failures)

    def _tell_restart(self, fault: Failure) -> None:
        """Print a fault that does not end the run; when it comes again, its last line."""
        text = fault.text.splitlines()[-1] if fault.trace == self._told else fault.text
        left = f"going on from the last checkpoint ({self._remaining_restarts - 1} more restarts)"
        print(f"{text}; {'--resume goes on' if self._asked else left}", file=sys.stderr)
        self._told = fault.trace

    def _exit_barrier(self, seconds: float = 300.0) -> None:
        """Let all machines get here before the one leaves that holds the store."""
        machines = self._worker_group.group_world_size
        comm.meet(self._worker_group.store, self.HERE, machines, seconds)
        if machines > 1 and self.machine_rank == 0:
            time.sleep(1)  # until the others have seen it, too


def run_agent(
    entry: Callable[..., None], workers: dict[str, Any], machines: int, machine_rank: int, address: Address
) -> None:
    """Call `entry(*workers["args"], address)` in each process of this machine; errors as in `launch`.

    Args:
        entry: it gets the address of the store that all processes of the run reach.
        workers: of torch's `WorkerSpec`, what concerns the processes of a machine.
        address: of machine 0; port 0 is any.
    """
    for name in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        log = logging.getLogger(name)
        log.propagate, log.handlers = False, [logging.NullHandler()]
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ""  # by torch; it would break off the start of processes
    if machines > 1:  # torch would not tell a machine that comes back where its own second store is
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    restarts, failure, agent = workers["max_restarts"], None, None
    place = f"tcp://{address[0]}:{address[1]}"
    with TemporaryDirectory(prefix="fastreid_run_") as folder:
        logs = DefaultLogsSpecs(folder)
        while restarts >= 0:
            try:
                meeting, store = _meet(address, machines, machine_rank)
                own = workers | {"args": (*workers["args"], (address[0], store.port))}
                spec = WorkerSpec("fastreid", rdzv_handler=meeting, entrypoint=entry, **own)
                agent = Agent(machine_rank, restarts, spec, logs)
                agent.run()
                failure = agent.failure
                break
            except RendezvousTimeoutError as error:
                raise UserError(
                    f"the {machines} machines did not meet at {place} in {TIMEOUT}",
                    "start the same command on each, with --machine-rank 0, 1, …",
                ) from error
            except (RendezvousError, RuntimeError):  # machine 0 is lost, and with it the store
                if machines == 1:
                    raise
                restarts = (agent._remaining_restarts if agent else restarts) - 1
                strange = f"what answers at --dist-url {place} is no run of this program"
                failure = Failure(1, LOST) if agent else Failure(2, strange)
    if failure:
        if failure.code > 128 and failure.text:
            print(failure.text, file=sys.stderr)
        raise failure.exception() from (WorkerError(failure.trace) if failure.code == 2 else None)


def _meet(address: Address, machines: int, machine_rank: int) -> tuple[DynamicRendezvousHandler, TCPStore]:
    """Return where all machines meet, and the store there, which machine 0 holds."""
    host, port = address
    if machine_rank and not comm.wait_until(lambda: _is_listening(address), TIMEOUT.total_seconds()):
        raise RendezvousTimeoutError
    try:
        store = _open_store(host, port, machine_rank == 0)
    except RuntimeError as error:
        if machine_rank:
            raise
        raise UserError(
            f"--dist-url tcp://{host}:{port}: this machine cannot listen there"
            f" ({' '.join(str(error).split())[:120]})",
            "give an address of machine 0 and a free port",
        ) from error
    if machines > 1 and machine_rank == 0:
        warn_once(__name__, f"waiting at tcp://{host}:{port} for {machines - 1} more machines")
    run_id = f"{host}:{port}" if machines > 1 else uuid.uuid4().hex
    seconds = {"join_timeout": int(TIMEOUT.total_seconds()), "keep_alive_interval": 1}
    place = RendezvousParameters("c10d", f"{host}:{port}", run_id, machines, machines, **seconds)
    return create_handler(store, C10dRendezvousBackend(store, run_id), place), store


def _is_listening(address: Address) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError as error:
        place = f"tcp://{address[0]}:{address[1]}"
        warn_once(__name__, f"waiting for machine 0 at {place} ({error.strerror or error})")
        return False
    return True


def _open_store(host: str, port: int, is_master: bool) -> TCPStore:
    """Open the store in a thread: its start waits for an answer for ever, and signals do not interrupt it.

    Raises:
        RuntimeError: if it does not get one, or another one than a store's.
    """
    opened: Future[TCPStore] = Future()

    def work() -> None:
        try:
            opened.set_result(TCPStore(host, port, None, is_master, STORE_TIMEOUT, wait_for_workers=False))
        except RuntimeError as error:
            opened.set_exception(error)

    Thread(target=work, daemon=True).start()
    try:
        return opened.result(STORE_TIMEOUT.total_seconds() + GRACE_SECONDS)
    except TimeoutError:
        raise RuntimeError("no store answers") from None
