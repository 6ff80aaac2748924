"""The table of an index's pictures, in SQLite: what is not in it is not found."""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastreid.deploy.search.folder import BUILD
from fastreid.deploy.search.segments import Segment
from fastreid.structures import SampleNames
from fastreid.utils.errors import UserError

KEY = "item"
WHOLE_NUMBERS = ("pid", "camid", "viewid")
NAMES = SampleNames._fields  # text, whatever they look like; earlier indexes of datasets have none
NUMBER = re.compile(r"(-?(0|[1-9]\d{0,17})(\.\d+)?)?")  # or nothing
WHOLE_NUMBER = re.compile(r"-?\d{1,18}")
FORMS = {"NUMERIC": NUMBER, "INTEGER": WHOLE_NUMBER}
PATIENCE = 60  # seconds that a reader waits for a change to be written
BUILD_CACHE = 128 * 1024  # KiB: paths come in any order, and their index is large


class PictureTable:
    """The pictures by number, the segments that hold their codes, and the numbers that were removed.

    All three change in one transaction: a process that is killed leaves what was there before. Columns are
    those of the list of pictures: ``path`` (text, each once), whole numbers, and others as numbers or text,
    by what they held when the table was made.
    """

    def __init__(self, path: Path, writable: bool = False) -> None:
        """Open a table; sqlite3.Error if there is none."""
        self.path = path
        self._database = _connect(path, "rw" if writable else "ro")
        if writable:
            self._database.execute("PRAGMA cache_spill = OFF")  # readers wait for the end alone
        query = "SELECT name, type FROM pragma_table_info('pictures')"
        self.columns = {name: kind for name, kind in self._execute(query) if name != KEY}
        if not self.columns:
            raise sqlite3.DatabaseError("no table of pictures")

    @classmethod
    def create(cls, path: Path, columns: dict[str, str]) -> "PictureTable":
        """Make an empty table.

        Args:
            columns: SQL type by name, as `column_types` gives them.

        Raises:
            UserError: for names that cannot stand side by side.
        """
        declared = [f"{quoted(name)} {kind}" for name, kind in columns.items()]
        database = _connect(path, "rwc")
        try:
            database.execute(
                f"CREATE TABLE pictures ({KEY} INTEGER PRIMARY KEY, {', '.join(declared)}, UNIQUE (path))"
            )
            database.execute("CREATE TABLE segments (number INTEGER PRIMARY KEY, first INTEGER, sizes BLOB)")
            database.execute("CREATE TABLE removed (item INTEGER PRIMARY KEY)")
        except sqlite3.Error as error:
            fix = f"rename columns of the list; {KEY} and different spellings of one name are not possible"
            raise UserError(f"columns {', '.join(columns)}: {error}", fix) from error
        finally:
            database.close()
        table = cls(path, writable=True)
        table._database.execute("PRAGMA cache_spill = ON")  # nobody reads it yet
        table._database.execute(f"PRAGMA cache_size = -{BUILD_CACHE}")
        return table

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def transaction(self, change: bool = True) -> Iterator[None]:
        """Make all changes in the block or none; with `change` False see one state throughout."""
        self._database.execute("BEGIN IMMEDIATE" if change else "BEGIN")
        self.segments()  # only now is the state fixed
        try:
            yield
        except BaseException:
            self._database.rollback()
            raise
        self._database.commit()

    def __len__(self) -> int:
        ((removed,),) = self._read("SELECT count(*) FROM removed")
        return sum(segment.count for segment in self.segments()) - removed

    def segments(self) -> list[Segment]:
        rows = self._read("SELECT number, first, sizes FROM segments ORDER BY number")
        return [Segment(number, first, np.frombuffer(sizes, np.int64)) for number, first, sizes in rows]

    def add_segment(self, segment: Segment) -> None:
        values = segment.number, segment.first, segment.sizes.astype(np.int64).tobytes()
        self._database.execute("INSERT INTO segments VALUES (?, ?, ?)", values)

    def adder(self, header: Sequence[str]) -> "PictureAdder":
        """Return what adds pictures with these columns; names that the table has no column for are left out.

        Raises:
            UserError: if they are not the table's.
        """
        missing = [name for name in NAMES if name not in self.columns]
        if set(header).difference(missing) != set(self.columns):
            raise UserError(
                f"the pictures have columns {', '.join(header)}, not {', '.join(self.columns)} as the index",
                "give both the same",
            )
        return PictureAdder(self._database, header, self.columns)

    def rows(self, items: np.ndarray) -> dict[int, dict[str, Any]]:
        """Return the columns of pictures, by number; those that were removed are missing."""
        names = ", ".join(quoted(name) for name in self.columns)
        found = {}
        for item in np.unique(items).tolist():
            for row in self._read(f"SELECT {names} FROM pictures WHERE {KEY} = ?", item):
                found[item] = dict(zip(self.columns, row, strict=True))
        return found

    def removed(self) -> np.ndarray:
        """Return the numbers of removed pictures, (n,) int64, rising."""
        rows = self._read("SELECT item FROM removed ORDER BY item")
        return np.fromiter((row[0] for row in rows), np.int64)

    def select(self, where: str) -> np.ndarray:
        """Return the numbers of the pictures of which an SQL expression holds, (n,) int64.

        It sees the columns and SQLite's functions; it can neither query, change nor open
        anything.

        Raises:
            UserError: for anything else.
        """
        statements = 0

        def permit(action: int, name: str | None, *rest: str | None) -> int:
            nonlocal statements
            statements += action == sqlite3.SQLITE_SELECT
            plain = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION)
            allowed = (plain and statements <= 1) or (action == sqlite3.SQLITE_READ and name == "pictures")
            return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

        self._database.set_authorizer(permit)
        try:
            rows = self._database.execute(f"SELECT {KEY} FROM pictures WHERE (\n{where}\n)")
            return np.fromiter((row[0] for row in rows), np.int64)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT:
                raise self._unreadable(error) from error
            fix = f'give one SQL expression of the columns {", ".join(self.columns)}, such as "camid = 3"'
            raise UserError(f"--where {where!r}: {error}", fix) from error
        finally:
            self._database.set_authorizer(None)

    def find(self, paths: Sequence[str]) -> np.ndarray:
        """Return the numbers of the pictures with these paths; others have none."""
        query = f"SELECT {KEY} FROM pictures WHERE path = CAST(? AS TEXT)"
        return np.fromiter((row[0] for path in paths for row in self._read(query, raw(path))), np.int64)

    def _read(self, query: str, *values: Any) -> Iterator[tuple]:
        try:
            yield from self._execute(query, *values)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _execute(self, query: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._database.execute(query, values)
        except sqlite3.OperationalError:  # a process was killed while it wrote: only a writer may undo that
            with closing(_connect(self.path, "rw")) as writer:
                writer.execute("SELECT 1 FROM pictures LIMIT 1").fetchall()
            return self._database.execute(query, values)

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(f"{self.path} cannot be read ({error})", BUILD)

    def remove(self, items: np.ndarray) -> None:
        numbers = [(item,) for item in items.tolist()]
        self._database.executemany(f"DELETE FROM pictures WHERE {KEY} = ?", numbers)
        self._database.executemany("INSERT INTO removed VALUES (?)", numbers)

    def copy_pictures(self, path: Path) -> None:
        """Copy the pictures of another table, with new numbers from 0 on in the same order."""
        names = ", ".join(quoted(name) for name in self.columns)
        self._database.execute("ATTACH ? AS source", (f"{path.absolute().as_uri()}?mode=ro",))
        number = f"row_number() OVER (ORDER BY {KEY}) - 1"
        query = f"SELECT {number}, {names} FROM source.pictures ORDER BY {KEY}"
        self._database.execute(f"INSERT INTO pictures ({KEY}, {names}) {query}")
        self._database.execute("DETACH source")


class PictureAdder:
    """Adds pictures whose path the table has not yet."""

    def __init__(self, database: sqlite3.Connection, header: Sequence[str], columns: dict[str, str]) -> None:
        self._database = database
        self._columns = [(place, name, columns[name]) for place, name in enumerate(header) if name in columns]
        names = ", ".join(quoted(name) for _, name, _ in self._columns)
        values = [
            "CAST(? AS TEXT)" if kind == "TEXT" else "nullif(CAST(? AS TEXT), '')"
            for _, _, kind in self._columns
        ]
        self._insert = f"INSERT OR IGNORE INTO pictures ({KEY}, {names}) VALUES (?, {', '.join(values)})"

    def add(self, item: int, row: Sequence[str]) -> bool:
        """Add a picture under a number, unless its path is there already; tell whether it was added.

        Raises:
            UserError: for a text in a column of numbers.
        """
        values = []
        for place, name, kind in self._columns:
            values.append(row[place])
            allowed = FORMS.get(kind)
            if allowed and not allowed.fullmatch(row[place]):
                problem = f"column {name} of the index has numbers, {row[place]!r} is none"
                raise UserError(problem, "mend the list")
        return self._database.execute(self._insert, (item, *map(raw, values))).rowcount == 1


def column_types(rows: Iterator[list[str]]) -> dict[str, str]:
    """Return the SQL type of each column of a table whose first row has the names.

    NUMERIC where every field is a plain number or empty (and one is a number), else TEXT; ``0012`` is no
    plain number, since its zeros would be lost. Names of persons, cameras and views are text.
    """
    header = next(rows)
    numeric, filled = [name != "path" for name in header], [False] * len(header)
    for row in rows:
        for place, value in enumerate(row):
            if numeric[place]:
                numeric[place] = NUMBER.fullmatch(value) is not None
                filled[place] = filled[place] or value != ""
    kinds = zip(header, numeric, filled, strict=True)
    types = {name: "NUMERIC" if number and some else "TEXT" for name, number, some in kinds}
    own = dict.fromkeys(WHOLE_NUMBERS, "INTEGER") | dict.fromkeys(NAMES, "TEXT")
    return types | {name: kind for name, kind in own.items() if name in types}


def quoted(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def raw(value: str) -> bytes:
    """Return a text as SQLite stores it: file names need not be valid text."""
    return value.encode("utf-8", "surrogateescape")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    database = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=PATIENCE,
        isolation_level=None,
        check_same_thread=False,
    )
    database.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    return database
