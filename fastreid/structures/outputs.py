"""Outputs of methods and checks as plain data: findings, tables of numbers, parts to be exported."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor, nn

Level = Literal["ok", "warning", "error"]
Tensors: TypeAlias = dict[str, Tensor]


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


class ExportPart(NamedTuple):
    """A module that becomes a file."""

    name: str
    module: nn.Module
    outputs: tuple[str, ...]
    draw_inputs: Callable[[int], Tensors]
    """Inputs for a batch size, by name. The first dimension is the batch, but of scalars."""
    max_batch: int | None = None
    """Largest batch that ``torch.export`` may assume; None: any."""
