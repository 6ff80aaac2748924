"""Names that releases of a method have in their configuration files, in our words.

A file that uses one of a release's names is taken for one of its files: keys of it that we have no use for
(those of fast-reid's convolutional networks, for instance) are then left out with a warning. In all other
files an unknown key stays an error.
"""

from dataclasses import dataclass, field
from typing import Any

from yacs.config import CfgNode as YacsNode

from fastreid.config.files import flat_keys, nested, update_nested
from fastreid.utils.errors import UserError, nearest_name
from fastreid.utils.logger import warn_once

METHOD = "MODEL.META_ARCHITECTURE"


@dataclass(frozen=True)
class Release:
    """The names of one release; a method's folder adds it to `RELEASES`.

    Attributes:
        renamed: full key -> our name in the same group.
        values: full key -> its value there -> ours.
        ignored: last part of a key under MODEL, or a full key that only it has -> why we have no use for it.
        homonyms: full key that we have as well -> why ours is another; it is left out.
        only: full key of a choice of its code -> the one value that is here; another is an error.
        implied: value of MODEL.META_ARCHITECTURE there -> keys that go with it unless the file has them.
    """

    renamed: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    homonyms: dict[str, str] = field(default_factory=dict)
    only: dict[str, Any] = field(default_factory=dict)
    implied: dict[str, dict[str, Any]] = field(default_factory=dict)

    def owns(self, name: str, value: Any) -> bool:
        """Tell whether the key, or its value, is one that only the release has."""
        ours = self.our_value(name, value)
        return name in self.renamed or bool(self.why_ignored(name)) or name in self.only or ours is not None

    def why_ignored(self, name: str) -> str | None:
        leaf = name.rpartition(".")[2] if name.startswith("MODEL.") else name
        return self.ignored.get(leaf) or self.ignored.get(name)

    def our_value(self, name: str, value: Any) -> str | None:
        return self.values.get(name, {}).get(value) if isinstance(value, str) else None


RELEASES: list[Release] = []


def release_of(values: dict) -> Release | None:
    """Return the release one of whose names `values` use, if any."""
    names = flat_keys(values).items()
    return next((r for r in RELEASES if any(r.owns(name, value) for name, value in names)), None)


def our_method(values: dict) -> str | None:
    """Return the method that `values` name, in our words; None if they name none."""
    model = values.get("MODEL")
    method = model.get("META_ARCHITECTURE") if isinstance(model, dict) else values.get(METHOD)
    release = release_of(values)
    ours = release.our_value(METHOD, method) if release else None
    return ours or (method if isinstance(method, str) else None)


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
    method, ours = flat_keys(values).get(METHOD), {}
    for name, value in release.implied.get(method, {}).items() if isinstance(method, str) else ():
        update_nested(ours, nested(name, value))
    update_nested(ours, _translate(values, root, release, "", source))
    return ours


def _translate(values: dict, node: YacsNode, release: Release, prefix: str, source: str) -> dict:
    result: dict = {}
    renamed = {
        release.renamed[f"{prefix}{key}"]: key for key in values if f"{prefix}{key}" in release.renamed
    }
    for key, value in values.items():
        name = f"{prefix}{key}"
        ours = release.our_value(name, value)
        if key in renamed:
            _tell(source, f"{name} {value!r} is ignored: there {prefix}{renamed[key]} says it")
        elif name in release.renamed:
            result[release.renamed[name]] = value
            _tell(source, f"{name} is {prefix}{release.renamed[name]} here")
        elif ours is not None:
            result[key] = ours
            _tell(source, f"{name} {value} is {ours} here")
        elif name in release.only:
            _check_only(name, value, release.only[name], source)
        elif reason := release.why_ignored(name) or release.homonyms.get(name):
            _tell(source, f"{name} {value!r} is ignored: {reason}")
        elif key not in node:
            near = nearest_name(str(key), [*node])
            _tell(source, f"{name} {value!r} is ignored: nothing here corresponds to it.{near}")
        elif isinstance(value, dict) and isinstance(node[key], YacsNode):
            result[key] = _translate(value, node[key], release, f"{name}.", source)
        else:
            result[key] = value
    return result


def _check_only(name: str, value: Any, only: Any, source: str) -> None:
    if value != only:
        raise UserError(
            f"{source}: a file of the method's authors: {name} {value!r} chooses code of it that is not"
            f" here, where there is {only!r} alone",
            "leave the key out, if that is what you want",
        )


def _tell(source: str, message: str) -> None:
    warn_once(__name__, f"{source}: a file of the method's authors: {message}")
