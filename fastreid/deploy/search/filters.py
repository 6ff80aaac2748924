"""The cameras and views that a search is limited to, as a condition of the table of pictures."""

from collections.abc import Sequence

from fastreid.deploy.search.table import PictureTable, quoted
from fastreid.utils.errors import UserError

COLUMNS = {"camera": ("camera", "camid"), "view": ("view", "viewid")}  # names, else numbers


def condition(
    table: PictureTable, where: str | None, cameras: Sequence[str], views: Sequence[str]
) -> str | None:
    """Return an SQL expression of the pictures that meet `where`, of these cameras and views; None: all.

    Args:
        where: an SQL expression of the table's columns; None: any picture.
        cameras, views: as the table names them; empty: any.

    Raises:
        UserError: if the table has no such column, or nothing of a name.
    """
    if not cameras and not views:
        return where
    parts = [] if where is None else [f"(\n{where}\n)"]
    for word, values in (("camera", cameras), ("view", views)):
        if values:
            parts.append(_one_of(table, word, values))
    return " AND ".join(parts)


def _one_of(table: PictureTable, word: str, values: Sequence[str]) -> str:
    column = next((name for name in COLUMNS[word] if name in table.columns), None)
    if column is None:
        fix = f"index features that were extracted from a dataset, or from a list with a column {word}"
        raise UserError(f"--{word}: the index has no column {' or '.join(COLUMNS[word])}", fix)
    for value in values:
        if not len(table.select(_is_in(column, [value]))):
            raise UserError(f"--{word} {value!r}: the index has no such picture (column {column})")
    return _is_in(column, values)


def _is_in(column: str, values: Sequence[str]) -> str:
    literals = ["'" + value.replace("'", "''") + "'" for value in values]
    return f"CAST({quoted(column)} AS TEXT) IN ({', '.join(literals)})"
