"""Telling which images could not be read."""

import logging
from collections import Counter
from typing import Any

from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm

logger = logging.getLogger(__name__)


class BadImageReport(HookBase):
    """After the last epoch, lists the images that others replaced (DATALOADER.ON_BAD_IMAGE skip).

    The counts of all ranks are added, and survive a resume.

    Args:
        replaced: path -> how often it was replaced; this rank's loader counts there.
    """

    def __init__(self, replaced: Counter[str]) -> None:
        self.replaced = replaced

    def after_epoch(self) -> None:
        if self.trainer.epoch < self.trainer.max_epoch:
            return
        total = self._total()
        if total:
            logger.warning(
                "%d images could not be read; others replaced them %d times:\n%s",
                len(total),
                total.total(),
                "\n".join(f"{count:6d} x {path}" for path, count in sorted(total.items())),
            )
        else:
            logger.info("All drawn images could be read")

    def state_dict(self) -> dict[str, Any]:
        return {"replaced": dict(sorted(self._total().items()))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.replaced.clear()
        if comm.is_main_process():
            self.replaced.update({str(path): int(n) for path, n in state.get("replaced", {}).items()})

    def _total(self) -> Counter[str]:
        return sum(comm.all_gather_object(self.replaced), Counter())
