"""Stopping cleanly on SIGINT (Ctrl-C), SIGTERM and SIGHUP (a closed terminal)."""

import logging
import os
import signal
import time
from contextlib import ExitStack
from types import FrameType

import torch

from fastreid.engine.finite import LOOK_PERIOD
from fastreid.engine.hooks.checkpointing import LATEST
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from fastreid.utils.signals import SAME_REQUEST, stop_signals_to

logger = logging.getLogger(__name__)


class StopOnSignal(HookBase):
    """On a signal, finishes the iteration, writes ``model_latest.pth`` and exits with 128 + its number.

    With several ranks, one that is asked stops all after the same iteration: they agree every ``LOOK_PERIOD``
    iterations and after every epoch, as agreeing is waiting for the device. While an evaluation runs
    (`trainer.may_stop_at_once`) nothing has to be saved and the process exits at once. A second signal
    always ends the process at once, unless it comes so soon that it is the same request on another way.
    """

    def __init__(self) -> None:
        self._requested, self._since = 0, 0.0
        self._training = ExitStack()

    def before_train(self) -> None:
        self._training.enter_context(stop_signals_to(self._handle))

    def after_step(self) -> None:
        if comm.get_world_size() == 1 or self.trainer.iteration % LOOK_PERIOD == 0:
            self._stop_if_asked()

    def after_epoch(self) -> None:
        self._stop_if_asked()  # asked while the epoch's checkpoint was written: not only after an evaluation

    def _stop_if_asked(self) -> None:
        number = self._agreed()
        if number:
            self.trainer.save_checkpoint(LATEST)
            logger.warning(
                "Stopped after iteration %d; the same command with --resume goes on", self.trainer.iteration
            )
            comm.synchronize()  # no rank ends before the file is written: the end of one ends all
            raise SystemExit(128 + number)

    def after_train(self) -> None:
        self._training.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            if time.monotonic() - self._since > SAME_REQUEST:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self._requested, self._since = number, time.monotonic()
        name = signal.Signals(number).name
        if self.trainer.may_stop_at_once:
            logger.warning("%s during an evaluation; the same command with --resume repeats it", name)
            raise SystemExit(128 + number)
        when = "after this iteration" if comm.get_world_size() == 1 else f"within {LOOK_PERIOD} iterations"
        logger.warning("%s: saving %s (once more: stop at once, without saving)", name, when)

    def _agreed(self) -> int:
        """The signal that any rank got, 0 for none; the same on all ranks."""
        if comm.get_world_size() == 1:
            return self._requested
        requested = torch.tensor(self._requested, device=self.trainer.device)
        torch.distributed.all_reduce(requested, op=torch.distributed.ReduceOp.MAX)
        return int(requested)
