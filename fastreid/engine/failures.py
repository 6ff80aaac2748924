"""The first failure of a run's processes, and the way in which other machines learn of it."""

import json
import socket
import time
import traceback
from datetime import timedelta
from typing import Literal, NamedTuple

import torch.distributed as dist

from fastreid.utils.errors import UserError

LONGEST_TEXT = 8000  # characters of a traceback, the last ones
LOST = "another process of the run has ended (its output tells why), and the connection to it is lost"


class WorkerError(RuntimeError):
    """A process of the run failed; the message holds its traceback."""


class Failure(NamedTuple):
    """The failure of a process: a mistake of the user, a fault, or a lost connection to another process."""

    kind: Literal["user", "fault", "lost"]
    text: str

    @classmethod
    def of(cls, rank: int, error: Exception) -> "Failure":
        """Describe `error`, which is being handled in process `rank`."""
        if isinstance(error, UserError):
            return cls("user", str(error))
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            return cls("lost", f"{LOST}: {' '.join(str(error).split())[:120]}")
        return cls("fault", f"process {rank} of the run failed:\n{traceback.format_exc()[-LONGEST_TEXT:]}")

    def exception(self) -> Exception:
        return UserError(self.text) if self.kind == "user" else WorkerError(self.text)


class FailureBoard:
    """The first failure of a run, for all its machines to read, in the rendezvous store.

    The store is reached as long as the program lives that holds it (on machine 0). When it is not, nothing
    is known of the others, which is no error.

    Args:
        address: of the store, to which this object connects when it is first needed.
        store: the store, where this process has it already.
    """

    FIRST, POSTED, SETTLED = "fastreid/first_failure", "fastreid/failures", "fastreid/settled_machines"
    SECONDS = 5.0  # that one machine waits for another: all notice a failure at about the same time
    PERIOD = 0.5  # seconds between two looks

    def __init__(self, address: tuple[str, int] | None = None, store: dist.Store | None = None) -> None:
        self._address = address
        self._store = store
        self._holds_it = store is not None
        self._next_look = time.monotonic()

    def look(self) -> Failure | None:
        """The failure that was posted first, None while there is none. Cheap: may be called all the time."""
        if time.monotonic() < self._next_look:
            return None
        self._next_look = time.monotonic() + self.PERIOD
        try:
            if self._connect() and self._store.check([self.FIRST]):
                return Failure(*json.loads(self._store.get(self.FIRST)))
        except RuntimeError:  # of which torch's connection errors are
            self._store = self._address = None
        return None

    def first(self, own: Failure) -> Failure:
        """Post `own`; or, as a lost connection is only a consequence, wait some seconds for its cause."""
        deadline = time.monotonic() + self.SECONDS
        while own.kind == "lost" and time.monotonic() < deadline:
            if found := self.look():
                return found
            time.sleep(self.PERIOD / 5)
        try:
            if own.kind != "lost" and self._connect() and self._store.add(self.POSTED, 1) == 1:
                self._store.set(self.FIRST, json.dumps(own))
        except RuntimeError:
            self._store = self._address = None
        return own

    def settle(self, machines: int) -> None:
        """Tell that this machine needs the store no more; who holds it waits some seconds for all to tell."""
        deadline = time.monotonic() + self.SECONDS
        try:
            settled = self._store.add(self.SETTLED, 1) if self._connect() else machines
            while self._holds_it and settled < machines and time.monotonic() < deadline:
                time.sleep(self.PERIOD / 5)
                settled = self._store.add(self.SETTLED, 0)
        except RuntimeError:
            return

    def _connect(self) -> bool:
        """Tell whether the store is at hand; try a plain socket first, torch would complain at length."""
        if self._store is None and self._address is not None:
            try:
                socket.create_connection(self._address, timeout=1).close()
            except OSError:
                return False
            seconds = timedelta(seconds=self.SECONDS)
            self._store = dist.TCPStore(*self._address, is_master=False, timeout=seconds)
        return self._store is not None
