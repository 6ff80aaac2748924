"""What the reference release of SD-ReID calls things in its configuration files, in our words.

A file that uses one of its names is taken for one of its files: keys of it that we have no use for (those of
fast-reid's convolutional networks, for instance) are then left out with a warning. In all other files an
unknown key stays an error.
"""

from collections.abc import Iterator
from typing import Any

from yacs.config import CfgNode as YacsNode

from fastreid.utils.errors import nearest_name
from fastreid.utils.logger import warn_once

# A key of the same group.
RENAMED = {"MODEL.SDMODEL.MOEMNTUM": "MOMENTUM"}

VALUES = {
    "MODEL.META_ARCHITECTURE": {
        "Baseline_stage1": "SDReIDStage1",
        "Baseline_stage1_3view": "SDReIDStage1",
        "Baseline_stage2_old": "SDReIDStage2",
        "Baseline_stage2_old_3view_2": "SDReIDStage2",
    },
    "MODEL.BACKBONE.NAME": {"build_vit_prompt": "build_vit_backbone"},
}

# Under MODEL, in any group: why we have no use for them.
IGNORED = {
    "SWITCH": "a choice between variants of its code; here all parts of the method act",
    "SWITCH2": "a choice between variants of its code; here all parts of the method act",
    "N_CTX": "the view prompt is one token",
}

THREE_VIEWS = ("Baseline_stage1_3view", "Baseline_stage2_old_3view_2")


def from_reference(values: dict, root: YacsNode, source: str) -> dict:
    """`values` in our names, if they use the reference release's; else `values` themselves.

    Each name that is translated or left out is told in one warning.

    Args:
        values: nested, as a YAML file gives them.
        root: the configuration that they are for; tells which keys exist.
        source: their origin, for the warnings.
    """
    names = list(_leaves(values))
    if not any(_is_reference(name, value) for name, value in names):
        return values
    translated = _translate(values, root, "", source)
    if dict(names).get("MODEL.META_ARCHITECTURE") in THREE_VIEWS:
        settings = translated["MODEL"].setdefault("SDMODEL", {})
        if isinstance(settings, dict):  # what else it is, the merge refuses
            settings.setdefault("VIEW_NUM", 3)
    return translated


def _leaves(values: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_reference(name: str, value: Any) -> bool:
    return name in RENAMED or _is_ignored(name) or _our_value(name, value) is not None


def _is_ignored(name: str) -> bool:
    return name.startswith("MODEL.") and name.rpartition(".")[2] in IGNORED


def _our_value(name: str, value: Any) -> str | None:
    return VALUES.get(name, {}).get(value) if isinstance(value, str) else None


def _translate(values: dict, node: YacsNode, prefix: str, source: str) -> dict:
    result: dict = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        ours = _our_value(name, value)
        if name in RENAMED:
            result[RENAMED[name]] = value
            _tell(source, f"{name} is {prefix}{RENAMED[name]} here")
        elif ours is not None:
            result[key] = ours
            _tell(source, f"{name} {value} is {ours} here")
        elif _is_ignored(name):
            _tell(source, f"{name} {value!r} is ignored: {IGNORED[name.rpartition('.')[2]]}")
        elif key not in node:
            near = nearest_name(str(key), [*node])
            _tell(source, f"{name} {value!r} is ignored: nothing here corresponds to it.{near}")
        elif isinstance(value, dict) and isinstance(node[key], YacsNode):
            result[key] = _translate(value, node[key], f"{name}.", source)
        else:
            result[key] = value
    return result


def _tell(source: str, message: str) -> None:
    warn_once(__name__, f"{source}: a file of the reference release: {message}")
