"""The reference release's parameter names, in ours."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from fastreid.modeling.meta_arch.sdreid.as_released import SDReIDStage2AsReleased
from fastreid.modeling.meta_arch.sdreid.stage1 import SDReIDStage1
from fastreid.modeling.meta_arch.sdreid.stage2 import SDReIDStage2
from fastreid.utils.errors import UserError

_LEARNER = "generator.condition_learner."
_VRD = "generator.view_refined_decoder."
_LAYER = rf"{_LEARNER}transformer.layers.\1."
_BLOCK = r"condition_learner\.trans\.resblocks\.(\d+)\."
_CENTER = r"mm\.view_centers\.(\d+)"
_IN_PROJ = _BLOCK + r"attn\.in_proj_(weight|bias)"
_SECOND_COPY = "inverse_sampling."

# One tensor here for one there; what needs more than a name is in `_converted`.
RENAMED = {
    r"(backbone\..+)": r"\1",
    r"((?:view_)?heads\.(?:bottleneck\.0\..+|weight))": r"\1",
    r"unet\.model\.(.+)": r"generator.unet.\1",
    r"condition_learner\.learnable_vector": f"{_LEARNER}null_context",
    _BLOCK + r"ln_([12])\.(weight|bias)": _LAYER + r"layer_norm\2.\3",
    _BLOCK + r"attn\.out_proj\.(weight|bias)": _LAYER + r"self_attn.out_proj.\2",
    _BLOCK + r"mlp\.c_fc\.(weight|bias)": _LAYER + r"mlp.fc1.\2",
    _BLOCK + r"mlp\.c_proj\.(weight|bias)": _LAYER + r"mlp.fc2.\2",
} | {
    # 0 to 2 refine the UNet's encoder, 3 to 5 its decoder; the finest level comes first.
    rf"condition_learner\.downsamplers\.{3 * half + level}\.(weight|bias)": rf"{_VRD}{name}.{level}.\1"
    for half, name in enumerate(("encoder", "decoder"))
    for level in range(3)
}

# Ours alone, at the values with which we compute what the reference release does.
OUR_OWN = ("memory_bank.seen", "generator.codec.mean", "generator.codec.std")


@dataclass
class Conversion:
    """A state dict in our names, and what became of the reference's.

    Attributes:
        state: what the model loads.
        loaded: reference name -> our name, or one of ours where there are several.
        dropped: reference names of second copies.
        unknown: reference names without a counterpart.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    loaded: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Numbers of tensors by part, and every unknown name."""
        parts = Counter((_part(name), _part(ours)) for name, ours in self.loaded.items())
        rows: list[tuple] = [("loaded", f"{theirs}.*", f"{ours}.*", n) for (theirs, ours), n in parts.items()]
        if self.dropped:
            rows.append(("dropped", f"{_SECOND_COPY}*", "the same as unet.model.*", len(self.dropped)))
        rows += [("unknown", name, "", 1) for name in self.unknown]
        return tabulate(rows, headers=("", "in the file", "here", "tensors"), tablefmt="simple")


def settings_of(reference: Mapping[str, Tensor], method: str) -> dict[str, Any]:
    """Configuration keys and values that the file tells.

    Args:
        method: that of the configuration. Of a Stage 2 it says whether it is to be run as described; else
            it is run as released.

    Raises:
        UserError: if the file lacks what tells the stage, the views or the identities, or its pyramids are
            not two of three levels with the same square kernels.
    """
    views = [name for name in reference if re.fullmatch(_CENTER, name)]
    if "heads.weight" not in reference or not views:
        raise UserError(
            "this is no checkpoint of the reference release: expected heads.weight and mm.view_centers.0, …,"
            f" but its names begin with {', '.join(sorted({name.split('.')[0] for name in reference}))}"
        )
    settings: dict[str, Any] = {
        "MODEL.META_ARCHITECTURE": SDReIDStage1.__name__,
        "MODEL.SDMODEL.VIEW_NUM": len(views),
        "MODEL.HEADS.NUM_CLASSES": len(reference["heads.weight"]),
    }
    if any(name.startswith("unet.model.") for name in reference):
        as_described = method == SDReIDStage2.__name__
        stage2 = SDReIDStage2 if as_described else SDReIDStage2AsReleased
        settings["MODEL.META_ARCHITECTURE"] = stage2.__name__
        settings["MODEL.SDMODEL.VRD_CONFIG.KERNEL_SIZES"] = _kernel_sizes(reference)
        blocks = {match[1] for match in (re.match(_BLOCK, name) for name in reference) if match}
        settings["MODEL.SDMODEL.CON_LEARNER_CONFIG.DEPTH"] = len(blocks)
    return settings


def caution(method: str) -> str:
    """Say what is doubtful about running the file under that method; empty if nothing."""
    if method != SDReIDStage2.__name__:
        return ""
    return (
        "caution: the release never trained condition_learner.downsamplers.3 to 5, and its condition learner"
        f" attended across the batch; {method} uses both otherwise. With the release's own yaml the"
        " checkpoint is run as it was trained"
    )


def _kernel_sizes(reference: Mapping[str, Tensor]) -> list[int]:
    names = [f"condition_learner.downsamplers.{index}.weight" for index in range(6)]
    absent = [name for name in names if name not in reference]
    if absent:
        raise UserError(f"the file lacks {', '.join(absent)}: the View-Refined Decoder has six convolutions")
    shapes = [tuple(reference[name].shape) for name in names]
    kernels = [shape[-1] for shape in shapes]
    if any(len(s) != 4 or s[1] != 1 or s[2] != s[3] for s in shapes) or kernels[:3] != kernels[3:]:
        raise UserError(
            f"condition_learner.downsamplers.* have shapes {shapes}: expected convolutions from 1 channel"
            " with square kernels, 0 to 2 with the same ones as 3 to 5"
        )
    return kernels[:3]


def convert(reference: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Conversion:
    """The reference's tensors under our names and in our shapes.

    Args:
        reference: its state dict.
        own: the state dict of our model of that configuration (see `settings_of`).

    Raises:
        UserError: naming what our model has and the file lacks, and tensors of another shape.
    """
    result = Conversion(state={name: own[name].clone() for name in OUR_OWN if name in own})
    result.state["memory_bank.seen"].fill_(True)
    sources: dict[str, str] = {}
    for name, value in reference.items():
        if name.startswith(_SECOND_COPY) and _is_copy(name, value, reference):
            result.dropped.append(name)
            continue
        converted = _converted(name, value)
        if not converted.keys() <= own.keys() or not converted:
            result.unknown.append(name)
            continue
        sources |= dict.fromkeys(converted, name)
        result.loaded[name] = next(iter(converted))
        result.state |= {ours: _fitting(tensor, own[ours]) for ours, tensor in converted.items()}
    _add_prototypes(reference, own, result)
    _check_complete(result, own, sources)
    return result


def _is_copy(name: str, value: Tensor, reference: Mapping[str, Tensor]) -> bool:
    """Tell whether the tensor stands in the file under ``unet.model`` too."""
    first = reference.get(name.removeprefix(_SECOND_COPY))
    return name.startswith(f"{_SECOND_COPY}unet.model.") and first is not None and torch.equal(first, value)


def _converted(name: str, value: Tensor) -> dict[str, Tensor]:
    """Our tensors for one of the reference's; none for a name without a rule."""
    if match := re.fullmatch(_IN_PROJ, name):
        layer, kind = match.groups()
        prefix = f"{_LEARNER}transformer.layers.{layer}.self_attn."
        return {
            f"{prefix}{part}_proj.{kind}": rows.clone()  # rows of the packed matrix: query, key, value
            for part, rows in zip("qkv", value.chunk(3), strict=True)
        }
    for pattern, ours in RENAMED.items():
        if match := re.fullmatch(pattern, name):
            return {match.expand(ours): value}
    return {}


def _add_prototypes(reference: Mapping[str, Tensor], own: Mapping[str, Tensor], result: Conversion) -> None:
    bank = own["memory_bank.prototypes"]
    names = [f"mm.view_centers.{view}" for view in range(len(bank))]
    if all(name in reference and reference[name].numel() == bank.shape[1] for name in names):
        result.state["memory_bank.prototypes"] = torch.stack([reference[name].flatten() for name in names])
        result.loaded |= dict.fromkeys(names, "memory_bank.prototypes")
        result.unknown = [name for name in result.unknown if name not in names]


def _fitting(value: Tensor, own: Tensor) -> Tensor:
    """`value` in the shape of `own`, if they differ in dimensions of size 1 only."""
    squeezed = [[size for size in tensor.shape if size != 1] for tensor in (value, own)]
    return value.reshape(own.shape) if squeezed[0] == squeezed[1] else value


def _check_complete(result: Conversion, own: Mapping[str, Tensor], sources: Mapping[str, str]) -> None:
    missing = [n for n in own if n not in result.state and not n.endswith("num_batches_tracked")]
    if missing:
        by_part = defaultdict(list)
        for name in missing:
            by_part[_part(name)].append(name)
        listed = "; ".join(f"{len(names)} of {part}.*, first {names[0]}" for part, names in by_part.items())
        unknown = f" (unknown names of the file: {', '.join(result.unknown[:5])})" if result.unknown else ""
        raise UserError(
            f"the file lacks {len(missing)} of the model's {len(own)} tensors, in our names:"
            f" {listed}{unknown}",
            "check that the config is that of the file (layers, widths, UNET_CONFIG)",
        )
    misfits = [
        f"{source} {tuple(result.state[name].shape)}, expected {tuple(own[name].shape)}"
        for name, source in sources.items()
        if result.state[name].shape != own[name].shape
    ]
    if misfits:
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise UserError(
            f"tensors of another shape than the config describes: {'; '.join(misfits[:3])}{more}",
            "check MODEL.BACKBONE, INPUT.SIZE_TRAIN and MODEL.SDMODEL.UNET_CONFIG",
        )


def _part(name: str) -> str:
    """The first component of a name, or the first two where the first is one of our or their wrappers."""
    wrappers = ("generator", "unet", "condition_learner", "mm")
    components = name.split(".")
    return ".".join(components[: 2 if components[0] in wrappers else 1])
