"""Configuration files, where they are and the bases that they name, and nested values."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from fastreid.config.imports import absolute_imports
from fastreid.utils.documents import parse_yaml
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import check_path

BASE_KEY = "_BASE_"


def find_config(path: str | Path) -> Path:
    """Return `path`, or the shipped file that a path such as ``configs/v2/base_stage1.yml`` names.

    So the shipped configurations are found from every folder, and from an installed package.

    Raises:
        UserError: for what can be no path.
    """
    check_path(path, "config file")
    path = Path(path)
    if path.exists() or path.is_absolute() or path.parts[:1] != ("configs",):
        return path
    package = Path(__file__).resolve().parents[1]
    shipped = [folder.joinpath(*path.parts) for folder in (package, package.parent)]
    return next((place for place in shipped if place.is_file()), path)


def join_layers(layers: list[dict]) -> dict:
    """Return nested values, those of later layers over those of earlier ones."""
    joined: dict = {}
    for layer in layers:
        update_nested(joined, deepcopy(layer))
    return joined


def read_layers(path: Path, including: tuple[Path, ...] = ()) -> list[dict]:
    """Return the nested values of a YAML file over those of its bases, in one layer for each method.

    A file that names another method than its bases begins a layer, because keys of their method end there.

    Args:
        including: the files whose base it is.

    Raises:
        UserError: for a missing or malformed file, or a cycle of bases.
    """
    path = path.resolve()
    if path in including:
        chain = " -> ".join(str(p) for p in (*including, path))
        raise UserError(f"config {path}: its {BASE_KEY} files form a cycle: {chain}")
    if not path.is_file():
        hint = f" (named by {BASE_KEY} of {including[-1]})" if including else ""
        raise UserError(f"config file not found: {path}{hint}", "the shipped ones are in configs/")
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"config {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"config {path} is not valid YAML: {error}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"config {path}: expected KEY: VALUE lines, found a {type(values).__name__}")

    layers: list[dict] = []
    bases = values.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"config {path}: {BASE_KEY} is {bases!r}; expected a config's path or a list of them")
    for base in bases:
        shipped, beside = find_config(base), path.parent / base
        place = shipped if shipped.is_file() and not beside.is_file() else beside
        for layer in read_layers(place, (*including, path)):
            _add_layer(layers, layer)
    if isinstance(values.get("IMPORTS"), list):
        values["IMPORTS"] = absolute_imports(values["IMPORTS"], path.parent)
    _add_layer(layers, values)
    return layers


def stored_config(meta: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the nested values of the configuration that a checkpoint's ``meta`` holds as YAML text.

    Raises:
        UserError: if it is none, naming `source`.
    """
    try:
        values = parse_yaml(meta["config"])
    except ValueError as error:
        raise UserError(f"{source}: its stored config is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(
            f"{source}: its stored config is a {type(values).__name__}, expected KEY: VALUE lines"
        )
    return values


def _add_layer(layers: list[dict], values: dict) -> None:
    """Merge `values` into the last layer, or begin one with them."""
    method, before = _method_of(values), (name for name in map(_method_of, reversed(layers)) if name)
    if not layers or (method and next(before, method) != method):
        layers.append({})
    imports = [layer.get("IMPORTS") for layer in (layers[-1], values)]
    update_nested(layers[-1], values)
    if all(isinstance(names, list) for names in imports):
        layers[-1]["IMPORTS"] = [*imports[0], *imports[1]]


def _method_of(values: dict) -> Any:
    model = values.get("MODEL")
    return model.get("META_ARCHITECTURE") if isinstance(model, dict) else None


def flat_keys(values: dict, prefix: str = "") -> dict[str, Any]:
    """Return ``{"A.B": value}`` of every leaf of a nested dict, or of a configuration."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            leaves |= flat_keys(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def nested(name: str, value: Any) -> dict:
    """Return the nested dict whose one leaf has this full name."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def update_nested(target: dict, other: dict) -> None:
    """Take the leaves of `other` into `target`, in place."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            update_nested(target[key], value)
        else:
            target[key] = value
