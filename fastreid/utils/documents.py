"""YAML and JSON of any origin as plain values: what is malformed, endless or too large is one ValueError."""

import json
import os
from pathlib import Path
from typing import Any

import yaml

LONGEST_YAML = 100_000  # characters, ten times those of a whole configuration
MOST_VALUES = 20_000  # an alias counts as all that it stands for
DEEPEST = 50
LONGEST_NUMBER = 100  # digits


class _Loader(yaml.SafeLoader):
    """Stops at what nests too deeply, before the scanner takes minutes for it."""

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level >= DEEPEST:
            raise ValueError(f"line {self.line + 1}: it nests too deeply")
        super().fetch_flow_collection_start(token)


def parse_yaml(text: str) -> Any:
    """Return the values of a YAML document, without tags that make objects.

    Raises:
        ValueError: for what is no YAML or too large, values that hold themselves, numbers beyond 64 bits and
            text with NUL characters, which no path may have.
    """
    if len(text) > LONGEST_YAML:
        raise ValueError(f"it has {len(text)} characters, more than {LONGEST_YAML}")
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _count(root, {}, [])
        values = loader.construct_document(root)
    except ValueError:
        raise
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    except Exception as error:  # for a tag that does not suit its value PyYAML raises what it comes upon
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    check_values(values)
    return values


def parse_json(text: str) -> Any:
    """Return the values of a JSON text. ValueError for what is none, nests too deeply or `check_values`."""
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    check_values(values)
    return values


def load_json(path: str | os.PathLike) -> Any:
    """Return the values of a JSON file. OSError or ValueError if it cannot be read."""
    return parse_json(Path(path).read_text(encoding="utf-8"))


def _count(node: yaml.Node, counted: dict[yaml.Node, int], around: list[yaml.Node]) -> int:
    """Count the values of a node, each alias as what it stands for."""
    line = f"line {node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode):
        if node.tag.endswith((":int", ":float")) and len(node.value) > LONGEST_NUMBER:
            raise ValueError(f"{line}: a number of {len(node.value)} characters")
        return 1
    if node in around:
        raise ValueError(f"{line}: a value that holds itself")
    if len(around) >= DEEPEST:
        raise ValueError(f"{line}: it nests too deeply")
    if node not in counted:
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        counted[node] = 1 + sum(_count(part, counted, [*around, node]) for part in parts)
    if counted[node] > MOST_VALUES:
        raise ValueError(f"{line}: more than {MOST_VALUES} values")
    return counted[node]


def check_values(value: Any, depth: int = 0) -> None:
    """Raise a ValueError for too many levels, a number beyond 64 bits or a NUL character in plain values."""
    if depth > DEEPEST:
        raise ValueError("it nests too deeply")
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set):
        for item in value:
            check_values(item, depth + 1)
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError(f"a whole number of {value.bit_length()} bits, and 64 are the most")
    elif isinstance(value, str) and "\0" in value:
        raise ValueError("text with a NUL character")
