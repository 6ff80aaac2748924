"""A yacs CfgNode that knows what each key means, with ``_BASE_`` files and errors that name the key."""

import ast
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as YacsNode

from fastreid.config.files import find_config, flat_keys, join_layers, nested, read_layers
from fastreid.config.imports import absolute_imports, import_user_modules, is_imported
from fastreid.config.keys import Key
from fastreid.config.releases import METHOD, from_release, our_method, release_of
from fastreid.utils.documents import check_values
from fastreid.utils.errors import UserError, nearest_name
from fastreid.utils.logger import warn_once
from fastreid.utils.registry import Registry

# Keys of earlier versions, which old files still have, and their defaults.
RETIRED = {"TEST.SAVE_RANKS": False, "SOLVER.AMP.MAX_SKIPPED": 20}


class CfgNode(YacsNode):
    """Nested configuration with attribute access; `get_cfg` makes the root.

    The root knows a :class:`Key` for each of its values, those of registered parts included. The keys of
    the method that MODEL.META_ARCHITECTURE names are there as long as it is named; those of another method
    are unknown.
    """

    def declare(self, keys: dict[str, Any], prefix: str = "") -> None:
        """Add keys with their defaults: nested dicts, such as ``{"MODEL.LOSSES.CE": {"SCALE": Key(…)}}``.

        What is there already stays.

        Raises:
            UserError: if a key is there already, with another meaning, or one is no `Key`.
        """
        for name, key in keys.items():
            if isinstance(key, dict):
                self._group(f"{prefix}{name}")
                self.declare(key, f"{prefix}{name}.")
            else:
                self._declare_one(f"{prefix}{name}", key)

    @property
    def declared(self) -> dict[str, Key]:
        """The keys by their full names."""
        return self.__dict__.setdefault("_declared", {})

    def entry(self, key: str) -> Any:
        """Return the registered thing that the value of `key` names.

        Raises:
            UserError: if none has that name.
        """
        group, _, leaf = key.rpartition(".")
        return self.declared[key].allowed.registry(key).get(self._group(group)[leaf])

    def merge_from_file(self, path: str | Path) -> None:
        """Merge a YAML file. ``_BASE_`` (a path relative to the file, or a list) is merged before it.

        ``IMPORTS`` may name Python files relative to the file; those of bases are imported, too.

        Raises:
            UserError: for a missing or malformed file, a cycle of bases, an unknown key, a wrong type.
        """
        layers = read_layers(find_config(path))
        joined = join_layers(layers)
        # The bases of a release's file are a release's, whether they use its own names or not.
        for layer in [joined] if release_of(joined) else layers:
            self.merge_values(layer, source=str(path))

    def merge_from_list(self, options: list[str]) -> None:
        """Merge ``["KEY", "VALUE", …]`` pairs, as they stand on a command line.

        Raises:
            UserError: for an odd number of items, an unknown key, a wrong type.
        """
        if len(options) % 2:
            raise UserError(f"overrides come as KEY VALUE pairs, but {options[-1]!r} has no value")
        pairs = list(zip(options[0::2], options[1::2], strict=True))
        # What brings names and keys comes first, wherever it stands.
        for key, value in sorted(pairs, key=lambda pair: ("IMPORTS", METHOD, pair[0]).index(pair[0])):
            self.merge_values(nested(key, value), source="command line")

    def merge_values(self, values: dict, source: str) -> None:
        """Merge a nested dict; `source` names its origin in errors. ValueError if the config is frozen.

        Names of a method's release are translated, see `releases`.
        """
        if self.is_frozen():
            raise ValueError("the configuration is frozen: clone and defrost it to change values")
        if self.declared and "IMPORTS" in values:
            values = values | {"IMPORTS": self._import(values["IMPORTS"], source)}
        if self.declared and (method := our_method(values)):
            self.use_method(method)  # before the translation, which leaves out keys that are not there
        _merge(from_release(values, self, source), self, [], source, self)

    def _group(self, name: str) -> "CfgNode":
        """The node of a group, made where it is missing."""
        node = self
        for part in filter(None, name.split(".")):
            if part not in node:
                node[part] = CfgNode()
            node = node[part]
        return node

    def _declare_one(self, name: str, key: Key) -> None:
        if not isinstance(key, Key):
            raise UserError(f"config key {name} is declared as {key!r}", "declare it with a Key")
        known = self.declared.setdefault(name, key)
        if known is not key and known != key:
            raise UserError(f"config key {name} is declared twice, with different meanings", "rename one")
        group, _, leaf = name.rpartition(".")
        node = self._group(group)
        if leaf not in node:
            node[leaf] = list(key.default) if isinstance(key.default, list) else key.default

    def merge_stored(self, values: dict, source: str, imports: Sequence[str] = ()) -> None:
        """Merge a configuration that came along with a checkpoint, and that nobody has named.

        Its own ``IMPORTS`` are not followed, because importing a module runs it.

        Args:
            imports: the modules that the user allows in their place.

        Raises:
            UserError: if it has IMPORTS and the user has allowed none, and as `merge_values`.
        """
        values = dict(values)
        named = _coerce(values.pop("IMPORTS", []), [""], "IMPORTS", source)
        wanted = [name for name in named if not is_imported(name)]
        if imports:
            self.merge_values({"IMPORTS": list(imports)}, "--imports")
            wanted = [name for name in wanted if not is_imported(name)]
        elif wanted:
            named = " ".join(wanted)
            raise UserError(
                f"{source} needs {named} imported, and a module that only a checkpoint names is not",
                f"allow it with --imports {named} where you trust it",
            )
        try:
            self.merge_values(values, source)
        except UserError as error:
            if not wanted:
                raise
            fix = f"{source} names {' '.join(wanted)}, too: allow it with --imports where you trust it"
            raise UserError(error.problem, fix) from error

    def _import(self, modules: Any, source: str) -> list[str]:
        modules = absolute_imports(_coerce(modules, [""], "IMPORTS", source), Path())
        import_user_modules(modules, source)
        self.declare_registered()
        return list(dict.fromkeys([*self.IMPORTS, *modules]))  # what was imported before is in use as well

    def declare_registered(self) -> None:
        """Add the keys that registered parts have of their own."""
        for registry in list(Registry.every.values()):
            for keys in registry.keys_of_entries():
                self.declare(keys)

    def use_method(self, name: str) -> None:
        """Set MODEL.META_ARCHITECTURE, and have the keys of that method instead of the present one's.

        Keys that both have keep their values.

        Raises:
            UserError: for an unknown method, or one whose `add_config` adds undeclared keys.
        """
        method = self.declared[METHOD].allowed.registry(METHOD).get(name)
        own: set[str] = self.__dict__.get("_of_method", set())
        kept = {key: value for key, value in flat_keys(self).items() if key in own}
        before = set(self.declared) - own
        self._forget(own)
        method.add_config(self)
        if stray := set(flat_keys(self)) - set(self.declared):
            raise UserError(
                f"add_config of {name} sets {', '.join(sorted(stray))}",
                "declare keys with cfg.declare and Key",
            )
        self.__dict__["_of_method"] = set(self.declared) - before
        for key, value in kept.items():
            if key in self.declared:
                group, _, leaf = key.rpartition(".")
                self._group(group)[leaf] = value
        self.MODEL.META_ARCHITECTURE = name

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            group, _, leaf = name.rpartition(".")
            self.declared.pop(name)
            del self._group(group)[leaf]
            while group and not self._group(group):
                group, _, leaf = group.rpartition(".")
                del self._group(group)[leaf]


def _merge(values: dict, node: YacsNode, path: list[str], source: str, root: CfgNode) -> None:
    for key, value in values.items():
        name = ".".join([*path, str(key)])
        if key not in node and name in RETIRED:
            if value != RETIRED[name]:
                warn_once(__name__, f"config key {name} ({source}) no longer exists: {value!r} has no effect")
            continue
        if key not in node:
            raise _unknown_key(name, value, source, root)
        old = node[key]
        if isinstance(old, YacsNode):
            if not isinstance(value, dict):
                raise UserError(f"config key {name!r} ({source}) is a group of keys, not a value: {value!r}")
            _merge(value, old, [*path, key], source, root)
        else:
            node[key] = _coerce(value, old, name, source)


def _unknown_key(name: str, value: Any, source: str, root: CfgNode) -> UserError:
    known = sorted(root.declared)
    if name in known:  # only a file can have a dot inside a key
        return UserError(
            f"config key {name!r} ({source}): a file has one level for each part of the name,"
            f" {name.split('.')[0]}: and the rest indented below it"
        )
    while isinstance(value, dict) and value:  # a group: its first key in full has a nearest name
        key, value = next(iter(value.items()))
        name = f"{name}.{key}"
    if owners := _owners(name, root):
        return UserError(
            f"config key {name!r} ({source}) is one of {', '.join(owners)}, and {METHOD} is"
            f" {root.MODEL.META_ARCHITECTURE}",
            "leave it out, or name another method",
        )
    return UserError(f"unknown config key {name!r} ({source}).{nearest_name(name, known)}")


def _owners(name: str, root: CfgNode) -> list[str]:
    """Return the methods that have a key of this name of their own."""
    owners = []
    if root.declared:
        registry = root.declared[METHOD].allowed.registry(METHOD)
        for method in sorted(registry):
            own = CfgNode()
            registry.get(method).add_config(own)
            owners += [method] * (name in own.declared)
    return owners


def _coerce(value: Any, old: Any, name: str, source: str) -> Any:
    """`value` in the type of `old`: text is read as a Python literal, int widens to float, list <-> tuple.

    Lists are converted element by element, each to the type of the first default.
    """
    if isinstance(value, str) and not isinstance(old, str):
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            read = ast.literal_eval(value)
            check_values(read)
            value = read
    if isinstance(old, list | tuple) and isinstance(value, list | tuple):
        if old:  # the defaults show the type of the elements
            value = [_coerce(item, old[0], f"{name}[{i}]", source) for i, item in enumerate(value)]
        return type(old)(value)
    if type(value) is type(old):
        return value
    if isinstance(old, float) and type(value) is int:
        with suppress(OverflowError):
            return float(value)
    raise UserError(
        f"config key {name!r} ({source}): expected {type(old).__name__} such as {old!r},"
        f" got {type(value).__name__} {value!r}"
    )
