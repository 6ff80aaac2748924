"""Registries: a name in a config file becomes a class or function."""

from collections.abc import Callable, Iterator
from typing import Any

from fastreid.utils.errors import UserError, nearest_name


class Registry:
    """Maps names to classes or functions.

    >>> BACKBONES = Registry("backbone", "MODEL.BACKBONE.NAME")
    >>> @BACKBONES.register()
    ... def build_net(cfg): ...
    >>> BACKBONES.get("build_net")
    """

    def __init__(self, kind: str, key: str) -> None:
        self.kind = kind
        self.key = key
        self._entries: dict[str, Any] = {}

    def register(self, name: str | None = None, entry: Any = None) -> Any:
        """Register `entry` under `name`; without an entry, return a decorator that does so.

        Raises:
            KeyError: if the name is taken.
        """
        if entry is None:
            return lambda decorated: self.register(name, decorated)
        name = name or entry.__name__
        if name in self._entries:
            raise KeyError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> Callable[..., Any]:
        """The entry of that name.

        Raises:
            UserError: if the name is unknown; the message lists the known names and the nearest.
        """
        if name not in self._entries:
            known = sorted(self._entries)
            raise UserError(
                f"unknown {self.kind} {name!r} in {self.key}.{nearest_name(name, known)}"
                f" Known: {', '.join(known)}"
            )
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)
