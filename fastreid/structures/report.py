"""Findings of checks, and tables of numbers, as plain data."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of what a check found.

    Attributes:
        level: ``error``: a run would stop or be wrong; ``warning``: it would go on, maybe not as meant.
        check: what was looked at, such as ``CARGO train``.
        found: what was found there.
        fix: what to do about it; empty when nothing is to be done, or `found` says it.
    """

    level: Level
    check: str
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Table:
    """A matrix of numbers, the higher the stronger coloured."""

    name: str  # of its file
    title: str
    row_label: str
    column_label: str
    row_names: list[str]
    column_names: list[str]
    values: list[list[float | None]]  # None: nothing to say
    notes: list[list[str]]  # what is said of each value; "" for nothing
    limits: tuple[float, float]  # of the colours
    decimals: int = 1
