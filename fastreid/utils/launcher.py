"""The environment that torchrun and its kin give each process of a run, read and checked in one place."""

import os
from typing import NamedTuple

from fastreid.utils.errors import UserError

MOST = 2**20  # processes
ADVICE = "a launcher such as torchrun sets it: to start without one, unset RANK and WORLD_SIZE"


class Place(NamedTuple):
    """The place of this process among those of the run."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int


def started_by_launcher() -> bool:
    """Tell whether a launcher has started this process as one of a run's."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launcher_place() -> Place:
    """Return what RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE say.

    Raises:
        UserError: for what are no such numbers, or contradict each other.
    """
    world_size = _number("WORLD_SIZE", 1, MOST)
    local_world_size = _number("LOCAL_WORLD_SIZE", 1, world_size, default=1)
    local_ranks = local_world_size if "LOCAL_WORLD_SIZE" in os.environ else world_size
    ranks = _number("RANK", 0, world_size - 1), _number("LOCAL_RANK", 0, local_ranks - 1)
    return Place(ranks[0], world_size, ranks[1], local_world_size)


def check_meeting_point() -> None:
    """Check that MASTER_ADDR and MASTER_PORT say where the processes meet.

    Raises:
        UserError: if one is missing, or the port is no number.
    """
    if not os.environ.get("MASTER_ADDR"):
        raise UserError("the environment variable MASTER_ADDR is missing or empty", ADVICE)
    _number("MASTER_PORT", 0, 65535, default=-1)


def _number(name: str, least: int, most: int, default: int = 0) -> int:
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise UserError(
            f"the environment variable {name} is {text!r}; expected a whole number from {least} to {most}",
            ADVICE,
        )
    return int(text)
