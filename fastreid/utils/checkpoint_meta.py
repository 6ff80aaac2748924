"""The ``meta`` of a checkpoint, checked: a file of another program may say anything there."""

from collections.abc import Callable
from typing import Any, NamedTuple

from fastreid.utils.errors import UserError

MOST_IDENTITIES = 10_000_000
WIDEST = 1_000_000  # numbers of a part of a feature


class Kind(NamedTuple):
    """A rule for an entry, and its words."""

    passes: Callable[[Any], bool]
    expected: str


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _is_number(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_names(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    cameras = value.get("cameras", {})
    return (
        _is_texts(value.get("identities", []))
        and _is_texts(value.get("views", []))
        and isinstance(cameras, dict)
        and all(type(number) is int and _is_text(name) for number, name in cameras.items())
    )


def _is_widths(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_text(name) and _is_number(width, WIDEST) for name, width in value.items()
    )


TEXT = Kind(_is_text, "text")
META = {
    "method": TEXT,
    "stage": Kind(lambda value: _is_number(value, 100), "a whole number"),
    "num_classes": Kind(
        lambda value: _is_number(value, MOST_IDENTITIES), f"a whole number from 0 to {MOST_IDENTITIES}"
    ),
    "names": Kind(_is_names, "lists of names of identities and views, and names of cameras by their numbers"),
    "feature_parts": Kind(_is_widths, "widths by names"),
    "config": TEXT,
    "version": TEXT,
    "rules": Kind(lambda value: _is_number(value, 10**9), "a whole number"),
}
"""The entries that somebody reads; a file need not have them all, and may have others."""


def check_meta(meta: Any, source: str) -> dict[str, Any]:
    """Return a checkpoint's ``meta``, whose known entries are of the right kind.

    Raises:
        UserError: naming the first that is not.
    """
    if not isinstance(meta, dict):
        raise _malformed(source, "meta", meta, "a dict")
    for name, kind in META.items():
        if name in meta and not kind.passes(meta[name]):
            raise _malformed(source, f"meta.{name}", meta[name], kind.expected)
    return meta


def _malformed(source: str, name: str, value: Any, expected: str) -> UserError:
    found = type(value).__name__ if not isinstance(value, int) else repr(value)
    return UserError(
        f"checkpoint {source}: {name} is {found}, expected {expected}", "use a checkpoint that training wrote"
    )
