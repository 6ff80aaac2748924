"""Checkpoint files: written so that none is ever lost, read without running code."""

import fnmatch
import logging
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from fastreid.utils.checkpoint_meta import check_meta
from fastreid.utils.checksums import digest
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write
from fastreid.utils.signals import stop_signals_to
from fastreid.utils.weight_files import check_tensor_records, check_weights, read_torch_file, require_file

logger = logging.getLogger(__name__)

LAST_CHECKPOINT = "last_checkpoint"
CHECKPOINTS = "model_*.pth"
ANOTHER = "use another checkpoint of the run or copy it again"
DIGESTS = "tensor_digests"  # entry of a checkpoint, by the names of its other entries


def load_checkpoint(path: str | os.PathLike, whole: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code that it may hold.

    Tensors are mapped from the file: what nobody reads is not read, and processes share what they do. As long
    as one of them is used, the file may be replaced or removed, but not be written over in place.

    The model's weights are read, and compared with their digest; in a file of somebody else's everything is
    compared with the checksums of its format, which takes longer. Files from before PyTorch 1.6 have none.

    Args:
        whole: compare the optimiser's state and the rest, too.

    Returns:
        At least ``{"model": state_dict, "meta": {…}}``. A file that is a bare state_dict comes back in
        that form with an empty ``meta``.

    Raises:
        UserError: if the file is missing, empty, truncated, damaged, no checkpoint, or needs code to be run.
    """
    path = Path(path)
    require_file(path, "checkpoint", ANOTHER)
    content = read_torch_file(path, "checkpoint", ANOTHER)
    if not isinstance(content, dict) or not isinstance(content.get(DIGESTS), dict):
        check_tensor_records(path, "checkpoint", ANOTHER)
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {path} holds a {type(content).__name__}, not a dict with model weights")
    if not isinstance(content.get("model"), dict):
        content = {"model": content}
    check_weights(content["model"], f"checkpoint {path}")
    for name, expected in content.pop(DIGESTS, {}).items():
        if (whole or name == "model") and digest(content.get(name)) != expected:
            raise UserError(f"checkpoint {path} is damaged: its {name} is not what was written", ANOTHER)
    return content | {"meta": check_meta(content.get("meta", {}), str(path))}


def _later(number: int, frame: FrameType | None) -> None:
    """Ignore that a loader's worker has died: who waits for its next batch is told."""


def _first_cause(error: BaseException) -> BaseException:
    """Return what torch's writer hides: the failure of the file, or what a signal's handler has raised."""
    while error.__context__ is not None:
        error = error.__context__
    return error


class Checkpointer:
    """Writes and finds the checkpoints of one output folder.

    Every file is complete when it appears under its name: an interrupted or failed writing leaves the
    earlier file of that name and `last_checkpoint` as they were.
    """

    def __init__(self, output_dir: str | os.PathLike) -> None:
        self.folder = Path(output_dir)

    def save(self, name: str, state: dict[str, Any], mark_last: bool = True) -> Path:
        """Write `state` as file `name`; with `mark_last` it becomes what a resumed run starts from.

        Raises:
            UserError: if the file cannot be written (disk full, folder read-only).
        """
        path = self.folder / name
        digests = {entry: digest(value) for entry, value in state.items()}
        try:
            with atomic_write(path) as file, stop_signals_to(_later, [signal.SIGCHLD]):
                torch.save({**state, DIGESTS: digests}, file)
            if mark_last:
                with atomic_write(self.folder / LAST_CHECKPOINT, "w") as file:
                    file.write(name + "\n")
        except (OSError, RuntimeError) as error:
            cause = _first_cause(error)
            if not isinstance(cause, OSError) and "inline_container" not in str(cause):
                raise cause from None
            reason = " ".join(str(cause).split())
            raise UserError(
                f"cannot write checkpoint {path}: {reason}. Earlier checkpoints are intact",
                "free space or fix the permissions of OUTPUT_DIR, then go on with --resume",
            ) from error
        logger.info("Checkpoint written: %s", path)
        return path

    def remove_partial_files(self) -> None:
        """Remove what killed processes left half written. No other process may be writing here."""
        for path in self.folder.glob(f".{CHECKPOINTS}.*.tmp"):
            path.unlink()

    def candidates(self) -> list[Path]:
        """Checkpoints of the folder, what `last_checkpoint` names first, then the newest first."""
        found = sorted(self.folder.glob(CHECKPOINTS), key=lambda p: p.lstat().st_mtime_ns, reverse=True)
        marker = self.folder / LAST_CHECKPOINT
        if not os.path.lexists(marker):
            return found
        name = marker.read_bytes().strip() if marker.is_file() else b""
        if not fnmatch.fnmatchcase(name, CHECKPOINTS.encode()) or b"/" in name or b"\0" in name:
            logger.warning("%s does not name a checkpoint of its folder. Trying the newest", marker)
            return found
        last = self.folder / os.fsdecode(name)
        return [last, *(path for path in found if path != last)]

    def load_last(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that can be read; None when the folder has none.

        An unreadable one is named in a warning and the one before it is taken.

        Raises:
            UserError: if there are checkpoints and none can be read.
        """
        candidates = self.candidates()
        for path in candidates:
            try:
                return path, load_checkpoint(path, whole=True)
            except UserError as error:
                logger.warning("%s. Trying the one before it", error)
        if candidates:
            raise UserError(f"no checkpoint in {self.folder} can be read", "start again without --resume")
        return None


def without_module_prefix(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State dicts of models wrapped for data parallelism have ``module.`` before every name."""
    if all(name.startswith("module.") for name in state_dict):
        return {name.removeprefix("module."): value for name, value in state_dict.items()}
    return state_dict
