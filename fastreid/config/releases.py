"""Names that releases of a method have in their configuration files, in our words.

A file that uses one of a release's names is taken for one of its files: keys of it that we have no use for
(those of fast-reid's convolutional networks, for instance) are then left out with a warning. In all other
files an unknown key stays an error.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from yacs.config import CfgNode as YacsNode

from fastreid.utils.errors import nearest_name
from fastreid.utils.logger import warn_once


@dataclass(frozen=True)
class Release:
    """The names of one release; a method's folder adds it to `RELEASES`.

    Attributes:
        renamed: full key -> our name in the same group.
        values: full key -> its value there -> ours.
        ignored: last part of a key under MODEL -> why we have no use for it.
        implied: value of MODEL.META_ARCHITECTURE there -> keys that go with it unless the file has them.
    """

    renamed: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    implied: dict[str, dict[str, Any]] = field(default_factory=dict)

    def owns(self, name: str, value: Any) -> bool:
        """Tell whether the key, or its value, is one that only the release has."""
        return name in self.renamed or self.ignores(name) or self.our_value(name, value) is not None

    def ignores(self, name: str) -> bool:
        return name.startswith("MODEL.") and name.rpartition(".")[2] in self.ignored

    def our_value(self, name: str, value: Any) -> str | None:
        return self.values.get(name, {}).get(value) if isinstance(value, str) else None


RELEASES: list[Release] = []


def release_of(values: dict) -> Release | None:
    """Return the release one of whose names `values` use, if any."""
    names = list(_leaves(values))
    return next((r for r in RELEASES if any(r.owns(name, value) for name, value in names)), None)


def from_release(values: dict, root: YacsNode, source: str) -> dict:
    """Return `values` in our names, if they use a release's; else `values` themselves.

    Each name that is translated or left out is told in one warning.

    Args:
        values: nested, as a YAML file gives them.
        root: the configuration that they are for; tells which keys exist.
        source: their origin, for the warnings.
    """
    release = release_of(values)
    if release is None:
        return values
    translated = _translate(values, root, release, "", source)
    method = dict(_leaves(values)).get("MODEL.META_ARCHITECTURE")
    for name, value in release.implied.get(method, {}).items() if isinstance(method, str) else ():
        _set_default(translated, name, value)
    return translated


def _set_default(values: dict, name: str, value: Any) -> None:
    *groups, leaf = name.split(".")
    for group in groups:
        values = values.setdefault(group, {})
        if not isinstance(values, dict):  # what else it is, the merge refuses
            return
    values.setdefault(leaf, value)


def _leaves(values: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _translate(values: dict, node: YacsNode, release: Release, prefix: str, source: str) -> dict:
    result: dict = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        ours = release.our_value(name, value)
        if name in release.renamed:
            result[release.renamed[name]] = value
            _tell(source, f"{name} is {prefix}{release.renamed[name]} here")
        elif ours is not None:
            result[key] = ours
            _tell(source, f"{name} {value} is {ours} here")
        elif release.ignores(name):
            _tell(source, f"{name} {value!r} is ignored: {release.ignored[name.rpartition('.')[2]]}")
        elif key not in node:
            near = nearest_name(str(key), [*node])
            _tell(source, f"{name} {value!r} is ignored: nothing here corresponds to it.{near}")
        elif isinstance(value, dict) and isinstance(node[key], YacsNode):
            result[key] = _translate(value, node[key], release, f"{name}.", source)
        else:
            result[key] = value
    return result


def _tell(source: str, message: str) -> None:
    warn_once(__name__, f"{source}: a file of the reference release: {message}")
