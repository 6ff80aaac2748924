"""The folder of a run: who may write there, what an earlier run left, and a disk that is full."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

from fastreid.config import CfgNode
from fastreid.utils import comm
from fastreid.utils.checkpoint import CHECKPOINTS, LAST_CHECKPOINT
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, check_output_folder, locked, set_aside, sync_folder
from fastreid.utils.logger import open_log_file
from fastreid.utils.wandb_writer import RUN_FILE as WANDB_RUN

logger = logging.getLogger(__name__)

AGENTS = ".run"  # file with the names of the agents that have started the run
TRAINED = (LAST_CHECKPOINT, CHECKPOINTS, "metrics.json", "evaluations.json")
TRAINED += ("results.json", "query_scores.npz")
# A fresh run moves what an earlier one left under these names out of its way.
RUN_FILES = (*TRAINED, "events.out.tfevents.*", "results.*.json", "query_scores.*.npz", WANDB_RUN)
# Nothing else than a file may stand under these, which every run writes.
OWN_FILES = (*TRAINED, AGENTS, ".lock", "config.yaml", "log.txt", "log.txt.rank*")
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def open_output_dir(cfg: CfgNode, write_config: bool = True) -> None:
    """Make OUTPUT_DIR, open its log file and write config.yaml. Call it once the input has proved good.

    Raises:
        UserError: if the folder cannot be written.
    """
    try:
        open_log_file(cfg.OUTPUT_DIR, comm.get_rank())
        if write_config and comm.is_main_process():
            with atomic_write(Path(cfg.OUTPUT_DIR) / "config.yaml", "w") as file:
                file.write(cfg.dump())
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} cannot be written: {error.strerror}") from error


@contextmanager
def locked_output_dir(cfg: CfgNode) -> Iterator[None]:
    """Make OUTPUT_DIR and keep other training runs out of it, as long as the block runs.

    Raises:
        UserError: if another run trains there, or the folder cannot be written.
    """
    if not comm.is_main_process():
        yield
        return
    folder = Path(cfg.OUTPUT_DIR)
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            clear_names(folder)
            ours = held.enter_context(locked(folder / ".lock"))
        except OSError as error:
            raise UserError(f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} cannot be written: {error.strerror}") from error
        if not ours:
            problem = f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} is in use by another training run"
            raise UserError(problem, "wait or choose another")
        yield


def clear_names(folder: Path) -> None:
    """Rename what has the name of a run's file but is none: a folder, a pipe, a link to what is not there."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if any(fnmatchcase(entry.name, name) for name in OWN_FILES) and not entry.is_file():
            logger.warning("%s is not a file, and is out of the way as %s", entry.path, set_aside(entry.path))


@contextmanager
def storage_errors_named(output_dir: str, kept: str, go_on: str) -> Iterator[None]:
    """Turn the failure to write, whichever file met it, into a UserError where the disk or the folder is why.

    Args:
        kept: what the message says about the work done so far.
        go_on: how to go on when there is room.
    """
    try:
        yield
    except OSError as error:
        if not os.path.isdir(output_dir):
            problem = f"OUTPUT_DIR {output_dir!r} was removed while it was written: what it held is lost"
            raise UserError(problem, "start again") from error
        if error.errno not in STORAGE_ERRORS:
            raise
        problem = f"cannot write in OUTPUT_DIR {output_dir!r}: {error.strerror}. {kept}"
        raise UserError(problem, f"make room or fix the disk, then {go_on}") from error


def is_restarted(output_dir: str) -> bool:
    """Tell whether it is this run, in an earlier start, that has begun in `output_dir`; ask on all ranks."""
    agents, path, begun = _agents(), Path(output_dir) / AGENTS, set()
    if comm.is_main_process() and path.is_file():
        begun = set(path.read_text("utf-8", "replace").splitlines())
    return comm.broadcast_object(bool(agents & begun))


def begin_run(output_dir: str, afresh: bool) -> None:
    """Note in `output_dir` that this run has begun there; call it on all ranks.

    Args:
        afresh: it does not go on from a checkpoint; another run's files are set aside.
    """
    restarted, agents = is_restarted(output_dir), _agents()
    if comm.is_main_process():
        if afresh and not restarted:
            set_earlier_run_aside(output_dir)
        with atomic_write(Path(output_dir) / AGENTS, "w") as file:
            file.writelines(f"{agent}\n" for agent in sorted(agents))


def _agents() -> set[str]:
    """Return names for the agents of the run, which have one each: the folders that torch made for them.

    They stay the same in every start, but of a machine that was lost and has come back. A restart count would
    not do: that machine counts from 0 again. Nor would the run's id: torchrun calls all runs "none".
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    own = [str(Path(file).parents[2])] if file else []  # FOLDER/attempt_N/RANK/error.json
    return set(chain.from_iterable(comm.all_gather_object(own)))


def set_earlier_run_aside(output_dir: str) -> None:
    """Move checkpoints and metrics of an earlier run in `output_dir` to its subfolder ``earlier.N``."""
    folder = Path(output_dir)
    files = sorted({path for pattern in RUN_FILES for path in folder.glob(pattern)})
    if not files:
        return
    number = 1
    while (target := folder / f"earlier.{number}").exists():
        number += 1
    target.mkdir()
    for path in files:
        os.replace(path, target / path.name)
    sync_folder(target)
    sync_folder(folder)
    logger.warning("OUTPUT_DIR held an earlier run (--resume would go on with it): moved to %s", target)


def check_output_dir(output_dir: str) -> None:
    """Check that OUTPUT_DIR can be made and written; makes nothing.

    Raises:
        UserError: if it cannot.
    """
    if not output_dir:
        raise UserError("OUTPUT_DIR is empty", "name the folder for logs and checkpoints")
    check_output_folder(output_dir, "OUTPUT_DIR")
