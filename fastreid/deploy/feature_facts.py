"""The facts of a folder of features, `features.json`: read and checked, compared with those of other work."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastreid.config import Changes, Key
from fastreid.config.files import flat_keys
from fastreid.deploy.shards import FORMATS
from fastreid.utils.documents import load_json
from fastreid.utils.errors import UserError

LARGEST = 2**40  # pictures; far less in practice


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST


def _is_checkpoint(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("path", "sha256"))


KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "checkpoint": (_is_checkpoint, "a path and a sha256"),
    "config": (lambda value: isinstance(value, dict), "a configuration"),
    "images": (lambda value: value == 0 or _is_count(value), "a number of pictures"),
    "width": (_is_count, "a number from 1 on"),
    "images_sha256": (
        lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value)),
        "64 hexadecimal digits",
    ),
    "format": (lambda value: value in FORMATS, " or ".join(FORMATS)),
    "shard_size": (_is_count, "a number from 1 on"),
}


def read_facts(path: Path) -> dict[str, Any]:
    """Read the facts of a folder of features, each of its kind.

    Raises:
        UserError: if the file is not there or is none, naming what is missing or wrong.
    """
    try:
        facts = load_json(path)
    except (OSError, ValueError) as error:
        problem = f"no features in {path.parent}: {path} is not there or not readable"
        raise UserError(problem, "name a folder of tools/extract_features.py") from error
    if not isinstance(facts, dict):
        raise UserError(f"{path} holds a {type(facts).__name__}, not the facts of features")
    missing = [key for key in KINDS if key not in facts] + ([] if feature_choice(facts) else ["parts"])
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}", "name a folder of tools/extract_features.py")
    for key, (passes, expected) in KINDS.items():
        if not passes(facts[key]):
            raise UserError(f"{path}: {key} is {str(facts[key])[:80]!r}, expected {expected}")
    for key, value in feature_choice(facts).items():
        if not isinstance(value, list) or not all(type(item) in (str, int) for item in value):
            raise UserError(f"{path}: {key} is {str(value)[:80]!r}, expected a list of names")
    return facts


def feature_choice(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `ReIDModel.extract` that give features of the parts that `facts` name."""
    return {name: facts[name] for name in ("parts", "views") if name in facts}


def different_settings(earlier: dict[str, Any], now: dict[str, Any], declared: dict[str, Key]) -> list[str]:
    """Return the settings that change features and differ in two configurations, as ``KEY earlier``."""
    old, new = flat_keys(earlier), flat_keys(now)
    return [
        f"{key} {old[key]}"
        for key, about in declared.items()
        if about.changes & Changes.FEATURES and key in old and key in new and old[key] != new[key]
    ]
