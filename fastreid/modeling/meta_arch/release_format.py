"""Checkpoints of a method's authors: their names in ours. A method says which it knows by its `release`."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tabulate import tabulate
from torch import Tensor

from fastreid.utils.errors import UserError
from fastreid.utils.weight_files import check_finite, misfit


class ReleaseFormat:
    """The names in the checkpoints of a method's authors; a subclass where it takes more than names.

    Args:
        renamed: pattern of a whole name of theirs -> ours, as in `re.Match.expand`.
        unused: pattern of a whole name of theirs -> why nothing here corresponds to it.
    """

    views: ClassVar[tuple[str, ...]] = ()
    """Names of the views by our numbers, where a method reads views and its files know their number."""

    def __init__(self, renamed: Mapping[str, str], unused: Mapping[str, str] | None = None) -> None:
        self.renamed, self.unused = renamed, unused or {}

    def settings(self, reference: Mapping[str, Tensor], method: str) -> dict[str, Any]:
        """Return configuration keys and values that the file tells.

        Args:
            reference: its state dict.
            method: that of the configuration.

        Raises:
            UserError: if it is no such file.
        """
        if "heads.weight" not in reference or reference["heads.weight"].ndim != 2:
            raise not_theirs(reference, f"a checkpoint of the authors of {method}", "heads.weight")
        return {"MODEL.HEADS.NUM_CLASSES": len(reference["heads.weight"])}

    def rearranged(self, reference: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the file's tensors so that each is one here: packed ones apart, lists of rows joined."""
        return reference

    def our_name(self, name: str) -> str | None:
        """Return our name for one of theirs; None without a rule."""
        for pattern, ours in self.renamed.items():
            if match := re.fullmatch(pattern, name):
                return match.expand(ours)
        return None

    def why_unused(self, name: str, reference: Mapping[str, Tensor]) -> str | None:
        """Say why nothing here corresponds to their tensor; None: something should."""
        return next((why for pattern, why in self.unused.items() if re.fullmatch(pattern, name)), None)

    def our_own(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what our model has beside theirs, at the values with which it computes the same."""
        return {}

    def caution(self, method: str) -> str:
        """Say what is doubtful about running the file under that method; empty if nothing."""
        return ""


@dataclass
class Conversion:
    """A state dict in our names, and what became of the authors'.

    Attributes:
        state: what the model loads.
        loaded: their name -> our name.
        dropped: their name -> why nothing here corresponds to it.
        unknown: their names without a counterpart.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    loaded: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return numbers of tensors by part, and every unknown name."""
        loaded = Counter((_part(name), _part(ours)) for name, ours in self.loaded.items())
        dropped = Counter((_part(name), why) for name, why in self.dropped.items())
        rows = [("loaded", theirs, ours, number) for (theirs, ours), number in loaded.items()]
        rows += [("dropped", theirs, why, number) for (theirs, why), number in dropped.items()]
        rows += [("unknown", name, "", 1) for name in self.unknown]
        return tabulate(rows, headers=("", "in the file", "here", "tensors"), tablefmt="simple")


def convert(
    reference: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    release: ReleaseFormat,
    training_only: tuple[str, ...] = (),
) -> Conversion:
    """Give the authors' tensors our names and our shapes.

    Args:
        reference: their state dict.
        own: the state dict of our model of that configuration (see `ReleaseFormat.settings`).
        training_only: prefixes of ours that the file may lack, see `ParameterRules`.

    Raises:
        UserError: naming what our model has and the file lacks, and tensors of another shape or type, or with
            numbers that are not finite.
    """
    result = Conversion(release.our_own(own))
    with taken_apart():
        rearranged = release.rearranged(reference)
    for name, value in rearranged.items():
        ours = release.our_name(name)
        if why := release.why_unused(name, reference):
            result.dropped[name] = why
        elif ours in own:
            result.loaded[name] = ours
            result.state[ours] = _fitting(value, own[ours])
        else:
            result.unknown.append(name)
    _check_complete(result, own, training_only)
    _check_misfits(result, own)
    check_finite({theirs: result.state[ours] for theirs, ours in result.loaded.items()}, "the file")
    return result


@contextmanager
def taken_apart() -> Iterator[None]:
    """Turn the failure of the block to read shapes of the authors' tensors, or cut them, into a UserError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the file's tensors are not of the shapes that its authors' code writes ({reason})",
            "name a file of theirs in --model, as their code wrote it",
        ) from error


def not_theirs(reference: Mapping[str, Tensor], expected: str, names: str) -> UserError:
    """Return the error of a file that is none of a format."""
    begin = ", ".join(sorted({name.split(".")[0] for name in reference}))
    problem = f"this is not {expected}: expected {names}, but its names begin with {begin}"
    return UserError(problem, "name a file of theirs in --model, and a config of its method")


def _part(name: str) -> str:
    """Return the first component of a name, or the first two of a longer one, with what follows as a star."""
    components = name.split(".")
    if len(components) < 3:
        return name
    return ".".join([*components[:2], "*"])


def _fitting(value: Tensor, own: Tensor) -> Tensor:
    """Return `value` in the shape of `own`, if they differ in dimensions of size 1 only."""
    squeezed = [[size for size in tensor.shape if size != 1] for tensor in (value, own)]
    return value.reshape(own.shape) if squeezed[0] == squeezed[1] else value


def _check_complete(result: Conversion, own: Mapping[str, Tensor], training_only: tuple[str, ...]) -> None:
    needed = [n for n in own if not n.endswith("num_batches_tracked") and not n.startswith(training_only)]
    missing = [name for name in needed if name not in result.state]
    if not missing:
        return
    by_part = defaultdict(list)
    for name in missing:
        by_part[_part(name)].append(name)
    parts = [f"{len(names)} of {where}, first {names[0]}" for where, names in by_part.items()]
    more = f"; and of {len(parts) - 4} more parts" if len(parts) > 4 else ""
    listed = "; ".join(parts[:4]) + more
    unknown = f" (unknown names of the file: {', '.join(result.unknown[:5])})" if result.unknown else ""
    raise UserError(
        f"the file lacks {len(missing)} of the model's {len(own)} tensors, in our names: {listed}{unknown}",
        "check that the config is that of the file (method, layers, widths), and that it is not in our names"
        " already",
    )


def _check_misfits(result: Conversion, own: Mapping[str, Tensor]) -> None:
    misfits = [
        f"{theirs} {odd}"
        for theirs, ours in result.loaded.items()
        if (odd := misfit(result.state[ours], own[ours]))
    ]
    if misfits:
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise UserError(
            f"tensors of another shape or type than the config describes: {'; '.join(misfits[:3])}{more}",
            "check MODEL.BACKBONE, INPUT.SIZE_TRAIN and the method's own keys",
        )
