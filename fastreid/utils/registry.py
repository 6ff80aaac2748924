"""Registries: a name in a config file becomes a class or function. They alone own the names."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

from fastreid.utils.errors import UserError, nearest_name


def requiring(*parts: str, see: str) -> Callable[[Any], str]:
    """Return the contract that an entry has these attributes; `see` names the file that describes them."""

    def lacks(entry: Any) -> str:
        missing = ", ".join(part for part in parts if not hasattr(entry, part))
        return f"it has no {missing} (see {see})" if missing else ""

    return lacks


class _Later(NamedTuple):
    """An entry whose module is imported when somebody first asks for it."""

    module: str
    attribute: str


class Registry:
    """Maps names to classes or functions.

    >>> BACKBONES = Registry("backbone", "MODEL.BACKBONE.NAME")
    >>> @BACKBONES.register()
    ... def build_net(cfg): ...
    >>> BACKBONES.get("build_net")

    An entry with configuration keys of its own has them as the attribute ``KEYS``: nested dicts that end in
    :class:`fastreid.config.Key`.

    Args:
        kind: what the entries are, for messages.
        key: the configuration key whose values are the names.
        contract: gives what an entry lacks, empty if nothing; entries that lack something are refused.
    """

    every: ClassVar[dict[str, "Registry"]] = {}  # by key

    def __init__(self, kind: str, key: str, contract: Callable[[Any], str] = lambda entry: "") -> None:
        self.kind = kind
        self.key = key
        self._contract = contract
        self._entries: dict[str, Any] = {}
        if Registry.every.setdefault(key, self) is not self:
            raise ValueError(f"there is a registry for {key} already")

    def register(self, name: str | None = None, entry: Any = None) -> Any:
        """Register `entry` under `name`; without an entry, return a decorator that does so.

        Raises:
            UserError: if the name is taken, or the entry breaks the registry's contract.
        """
        if entry is None:
            return lambda decorated: self.register(name, decorated)
        name = name or entry.__name__
        if name in self._entries:
            raise UserError(f"{self.kind} {name!r} is registered twice", "give one of them another name")
        self._entries[name] = entry if isinstance(entry, _Later) else self._checked(name, entry)
        return entry

    def register_later(self, name: str, module: str, attribute: str) -> None:
        """Register what `module` calls `attribute`, without importing the module before it is asked for."""
        self.register(name, _Later(module, attribute))

    def get(self, name: str) -> Any:
        """Return the entry of that name.

        Raises:
            UserError: if the name is unknown; the message lists the known names and the nearest.
        """
        self.check(name)
        entry = self._entries[name]
        if isinstance(entry, _Later):
            entry = getattr(import_module(entry.module), entry.attribute)
            self._entries[name] = self._checked(name, entry)
        return entry

    def _checked(self, name: str, entry: Any) -> Any:
        if lacking := self._contract(entry):
            raise UserError(f"{self.kind} {name!r} cannot be registered: {lacking}")
        return entry

    def check(self, name: str, key: str = "") -> None:
        """Raise a `UserError` if the name, a value of `key`, is unknown; imports nothing."""
        if name not in self._entries:
            known = sorted(self._entries)
            raise UserError(
                f"unknown {self.kind} {name!r} in {key or self.key}.{nearest_name(str(name), known)}"
                f" Known: {', '.join(known)}",
                "a module of yours that registers it is named in IMPORTS",
            )

    def keys_of_entries(self) -> list[dict[str, Any]]:
        """Return the configuration keys that entries have of their own."""
        return [entry.KEYS for entry in self._entries.values() if hasattr(entry, "KEYS")]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)
