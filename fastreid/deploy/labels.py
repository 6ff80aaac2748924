"""The labels of pictures that a model may read: a caller's names or numbers, or columns of a list."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from fastreid.config import CfgNode
from fastreid.data.datasets import open_dataset
from fastreid.data.datasets.base import joint_view_names
from fastreid.deploy.image_lists import Columns
from fastreid.utils.errors import UserError, nearest_name

Names: TypeAlias = Sequence[str | int] | str | int | None  # of views or cameras, or their numbers


class Label(NamedTuple):
    """A label of a batch, in the words of people."""

    word: str
    argument: str
    """Of `ReIDModel.extract`."""
    columns: tuple[str, ...]
    """Of a list, each of which will do."""


LABELS = {
    "camids": Label("camera", "cameras", ("camid", "camera")),
    "viewids": Label("view", "views", ("viewid", "view")),
}


def dataset_views(cfg: CfgNode) -> tuple[str, ...]:
    """Return the view names that DATASETS.NAMES have now; no picture is looked for.

    Raises:
        UserError: if a CSV file that tells them cannot be read.
    """
    data = cfg.DATASETS
    return joint_view_names(open_dataset(name, data.ROOT, data.CSV) for name in data.NAMES)


def as_list(values: Names) -> list[Any]:
    """Return one name or number, or several, as a list of Python's own; arrays and tensors will do."""
    if hasattr(values, "tolist"):  # an array or tensor
        values = values.tolist()
    return [values] if isinstance(values, str | int) else list(values)


def number_of(word: str, value: str | int, names: Mapping[int, str]) -> int:
    """Return the number of a view or camera, given by its name or number; numbers pass where none is known.

    Raises:
        UserError: for an unknown one.
    """
    if not isinstance(value, str):
        if names and value not in names:
            raise UserError(f"{word} {value}: this model has {', '.join(map(str, names))}")
        return int(value)
    numbers = {name: number for number, name in names.items()}
    if value not in numbers:
        near = nearest_name(value, list(numbers))
        raise UserError(f"unknown {word} {value!r}.{near} This model has {', '.join(numbers) or 'no names'}")
    return numbers[value]


def label_values(
    method: str, reads: frozenset[str], count: int, given: dict[str, Names]
) -> dict[str, list[str | int]]:
    """Check that a model is given what it reads of each of `count` pictures, and return that, by label.

    Args:
        method: its method's name.
        reads: its `test_labels`.
        given: names or numbers by label; None: not given.

    Raises:
        UserError: for labels that are missing, not read, or not as many as the pictures.
    """
    values = {}
    for label, names in given.items():
        word, argument, columns = LABELS[label]
        if names is None and label in reads:
            raise UserError(
                f"{method} reads the {word} of each picture ({label}), which is not given",
                f"give {argument}=[…] to extract, or --list a CSV file with columns path and {columns[0]}",
            )
        if names is not None and label not in reads:
            raise UserError(f"{argument} are given, which {method} does not read", "leave them out")
        if names is not None:
            values[label] = as_list(names)
            if len(values[label]) != count:
                raise UserError(f"{len(values[label])} {argument} are given for {count} pictures")
    return values


def column_arguments(method: str, reads: frozenset[str], columns: Columns) -> dict[str, list[Any]]:
    """Return the arguments of `ReIDModel.extract` for the labels that a model reads, out of a list.

    Raises:
        UserError: naming the column that is missing.
    """
    arguments = {}
    for label in sorted(reads):
        word, argument, names = LABELS[label]
        column = next((name for name in names if name in columns), None)
        if column is None:
            raise UserError(
                f"the list of pictures has no column {' or '.join(names)}: {method} reads the {word} of each",
                "give a dataset, or --list a CSV file with that column",
            )
        arguments[argument] = columns[column]
    return arguments
