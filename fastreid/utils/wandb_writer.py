"""Scalars of a training run in Weights & Biases, where its project is named; needs the extra ``tracking``."""

import secrets
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastreid.utils.errors import UserError
from fastreid.utils.events import EventStorage, Writer
from fastreid.utils.file_io import atomic_write

RUN_FILE = "wandb_run.txt"


def check_wandb(project: str) -> None:
    """Check that the package is there if a project is named.

    Raises:
        UserError: if it is not.
    """
    if project and find_spec("wandb") is None:
        problem = f"WANDB_PROJECT is {project!r}, but the Python package wandb is missing"
        raise UserError(problem, "pip install wandb, or leave the key empty")


class WandbWriter(Writer):
    """A run of a project of Weights & Biases.

    With ``WANDB_MODE=offline`` nothing is sent: ``wandb sync`` sends what lies in the folder ``wandb``.
    A resumed run goes on under the number of the one before, which ``wandb_run.txt`` keeps; what it repeats
    is not shown twice.

    Args:
        folder: the run's OUTPUT_DIR, which also names it.
        project: its name.
        config: the settings, nested.
        start_iteration: 0 for a fresh run.

    Raises:
        UserError: if wandb cannot start the run.
    """

    def __init__(
        self, folder: str | Path, project: str, config: dict[str, Any], start_iteration: int = 0
    ) -> None:
        wandb = import_module("wandb")
        folder = Path(folder)
        try:
            self._run = wandb.init(
                project=project,
                name=folder.name,
                dir=str(folder),
                id=_run_number(folder / RUN_FILE, start_iteration),
                resume="allow",
                config=config,
                settings=wandb.Settings(console="off"),  # the log is ours
            )
        except wandb.errors.Error as error:
            fix = "run `wandb login`, or set WANDB_MODE=offline"
            raise UserError(f"Weights & Biases, WANDB_PROJECT {project!r}: {error}", fix) from error

    def write(self, storage: EventStorage, updates: dict[str, float]) -> None:
        self._run.log(updates, step=storage.iteration)

    def close(self) -> None:
        self._run.finish()


def _run_number(file: Path, start_iteration: int) -> str:
    """Return the run's number: of a resumed one that in the file, else a new one, written to it."""
    if start_iteration and file.is_file():
        return file.read_text(encoding="utf-8").strip()
    number = secrets.token_hex(4)
    with atomic_write(file, "w") as stream:
        stream.write(number + "\n")
    return number
