"""Configuration keys, each with all that is said of it: default, meaning, range, and what it changes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from fastreid.utils.errors import UserError, nearest_name
from fastreid.utils.file_io import check_path
from fastreid.utils.registry import Registry


class Changes(Flag):
    """Tell what depends on a key: a resumed run may not change what is trained, nor may features be mixed."""

    NOTHING = 0
    TRAINING = auto()
    FEATURES = auto()
    BOTH = TRAINING | FEATURES


class Allowed(Protocol):
    """A rule for the values of a key."""

    def check(self, key: str, value: Any, shown: Any) -> None:
        """Raise a `UserError` if `value` is not allowed; `shown` is the whole list that it stands in."""


class Range(NamedTuple):
    """Numbers that pass a test."""

    passes: Callable[[float], bool]
    expected: str

    def check(self, key: str, value: Any, shown: Any) -> None:
        if not isinstance(value, int | float) or not self.passes(value):
            raise UserError(f"{key} is {shown!r}; it must be {self.expected}")


class Choice(NamedTuple):
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, key: str, value: Any, shown: Any) -> None:
        if value not in self.words:
            words = [str(word) for word in self.words]
            near = nearest_name(str(value), words)
            raise UserError(f"{key} is {value!r}; allowed: {', '.join(words)}.{near}")


class Registered(NamedTuple):
    """The names of a registry.

    Attributes:
        home: the package that makes it, and fills it when it is imported.
        of: the registry's key, where it is not the key's own.
    """

    home: str
    of: str = ""

    def check(self, key: str, value: Any, shown: Any) -> None:
        self.registry(key).check(value, key)

    def registry(self, key: str) -> Registry:
        import_module(self.home)
        return Registry.every[self.of or key]


class FilePath(NamedTuple):
    """Anything that may be the path of a file or folder, and the empty text."""

    def check(self, key: str, value: Any, shown: Any) -> None:
        check_path(value, key)


PATH = FilePath()
LARGEST = 2**31 - 1  # as a count or a size, more overflows somewhere
POSITIVE = Range(lambda value: 0 < value <= LARGEST, "greater than 0, and less than 2^31")
NOT_NEGATIVE = Range(lambda value: 0 <= value <= LARGEST, "0 or more, and less than 2^31")
FRACTION = Range(lambda value: 0 <= value <= 1, "from 0 to 1")


def choice(*words: str) -> Choice:
    return Choice(words)


@dataclass(frozen=True)
class Key:
    """One configuration key.

    Attributes:
        default: its value, and by that its type; the first element of a list shows the type of all.
        meaning: in a line, with the unit.
        allowed: which values it may have, each element of a list by itself; None: all of the type.
        changes: what depends on it.
        length: of a list that has a fixed one.
        element: the type of a list's elements where the default is empty.
        resumable: for a key that changes the training, whether a resumed run may change it nevertheless,
            given the run's configuration.
    """

    default: Any
    meaning: str
    allowed: Allowed | None = None
    changes: Changes = Changes.TRAINING
    length: int | None = None
    element: type | None = None
    resumable: Callable[[Any], bool] | None = None

    def check(self, name: str, value: Any) -> None:
        """Check a value of the default's type.

        Raises:
            UserError: naming the key, its value and what is allowed.
        """
        if isinstance(self.default, list):
            self._check_list(name, value)
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, float) and not math.isfinite(item):
                raise UserError(f"{name} is {value!r}; it must be finite")
            if self.allowed is not None:
                self.allowed.check(name, item, value)

    def _check_list(self, name: str, value: list) -> None:
        """Check length and types: a list that was empty at some time has lost its example."""
        kind = self.element or type(self.default[0])
        for item in value:
            if type(item) is not kind:
                raise UserError(
                    f"{name} is {value!r}: expected a list of {kind.__name__},"
                    f" found {type(item).__name__} {item!r}"
                )
        if self.length is not None and len(value) != self.length:
            raise UserError(f"{name} is {value!r}; expected {self.length} numbers")
