"""A yacs CfgNode with ``_BASE_`` files and errors that name the key."""

import ast
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode as YacsNode

from fastreid.config.reference_names import from_reference
from fastreid.utils.errors import UserError, nearest_name

BASE_KEY = "_BASE_"


class CfgNode(YacsNode):
    """Nested configuration with attribute access; see ``defaults.py`` for the keys."""

    def merge_from_file(self, path: str | Path) -> None:
        """Merge a YAML file. ``_BASE_`` (a path relative to the file, or a list) is merged before it.

        Raises:
            UserError: for a missing or malformed file, a cycle of bases, an unknown key, a wrong type.
        """
        values = _load_with_bases(Path(path), ())
        self.merge_values(values, source=str(path))

    def merge_from_list(self, options: list[str]) -> None:
        """Merge ``["KEY", "VALUE", …]`` pairs, as they stand on a command line.

        Raises:
            UserError: for an odd number of items, an unknown key, a wrong type.
        """
        if len(options) % 2:
            raise UserError(f"overrides come as KEY VALUE pairs, but {options[-1]!r} has no value")
        for key, value in zip(options[0::2], options[1::2], strict=True):
            nested: Any = value
            for part in reversed(key.split(".")):
                nested = {part: nested}
            self.merge_values(nested, source="command line")

    def merge_values(self, values: dict, source: str) -> None:
        """Merge a nested dict; `source` names its origin in errors. ValueError if the config is frozen.

        Names of the reference release are translated, see `reference_names`.
        """
        if self.is_frozen():
            raise ValueError("the configuration is frozen: clone and defrost it to change values")
        values = from_reference(values, self, source)
        _merge(values, self, [], source, known=sorted(flat_keys(self)))


def flat_keys(node: YacsNode, prefix: str = "") -> dict[str, Any]:
    """``{"A.B": value}`` of every leaf."""
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, YacsNode):
            leaves |= flat_keys(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def _load_with_bases(path: Path, including: tuple[Path, ...]) -> dict:
    path = path.resolve()
    if path in including:
        chain = " -> ".join(str(p) for p in (*including, path))
        raise UserError(f"config {path}: its {BASE_KEY} files form a cycle: {chain}")
    if not path.is_file():
        hint = f" (named by {BASE_KEY} of {including[-1]})" if including else ""
        raise UserError(f"config file not found: {path}{hint}; the shipped ones are in configs/")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"config {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date that does not exist
        raise UserError(f"config {path} is not valid YAML: {' '.join(str(error).split())}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"config {path}: expected KEY: VALUE lines, found a {type(values).__name__}")

    merged: dict = {}
    bases = values.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"config {path}: {BASE_KEY} is {bases!r}; expected a config's path or a list of them")
    for base in bases:
        _update_nested(merged, _load_with_bases(path.parent / base, (*including, path)))
    _update_nested(merged, values)
    return merged


def _update_nested(target: dict, other: dict) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _update_nested(target[key], value)
        else:
            target[key] = value


def _merge(values: dict, node: YacsNode, path: list[str], source: str, known: list[str]) -> None:
    for key, value in values.items():
        name = ".".join([*path, str(key)])
        if key not in node:
            raise _unknown_key(name, value, source, known)
        old = node[key]
        if isinstance(old, YacsNode):
            if not isinstance(value, dict):
                raise UserError(f"config key {name!r} ({source}) is a group of keys, not a value: {value!r}")
            _merge(value, old, [*path, key], source, known)
        else:
            node[key] = _coerce(value, old, name, source)


def _unknown_key(name: str, value: Any, source: str, known: list[str]) -> UserError:
    if name in known:  # only a file can have a dot inside a key
        return UserError(
            f"config key {name!r} ({source}): a file has one level for each part of the name,"
            f" {name.split('.')[0]}: and the rest indented below it"
        )
    while isinstance(value, dict) and value:  # a group: its first key in full has a nearest name
        key, value = next(iter(value.items()))
        name = f"{name}.{key}"
    return UserError(f"unknown config key {name!r} ({source}).{nearest_name(name, known)}")


def _coerce(value: Any, old: Any, name: str, source: str) -> Any:
    """`value` in the type of `old`: text is read as a Python literal, int widens to float, list <-> tuple.

    Lists are converted element by element, each to the type of the first default.
    """
    if isinstance(value, str) and not isinstance(old, str):
        with suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
    if isinstance(old, list | tuple) and isinstance(value, list | tuple):
        if old:  # the defaults show the type of the elements
            value = [_coerce(item, old[0], f"{name}[{i}]", source) for i, item in enumerate(value)]
        return type(old)(value)
    if type(value) is type(old):
        return value
    if isinstance(old, float) and type(value) is int:
        return float(value)
    raise UserError(
        f"config key {name!r} ({source}): expected {type(old).__name__} such as {old!r},"
        f" got {type(value).__name__} {value!r}"
    )
