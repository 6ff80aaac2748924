"""Files of weights, whoever wrote them: read without running code, and what is none is told in one line."""

import os
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fastreid.utils.checksums import check_records
from fastreid.utils.errors import UserError

ZIP_MAGIC = b"PK\x03\x04"
LFS_POINTER = b"version https://git-lfs"
PICKLE = "/data.pkl"  # the record of the archive that has all but the tensors
WRAPPERS = ("model", "state_dict")


def require_file(path: Path, what: str, fix: str) -> None:
    """Check that there is a file of its own content: no folder, no empty file, and nothing put in its place.

    Args:
        what: the file, for messages, such as "checkpoint".

    Raises:
        UserError: if there is not, with the advice `fix` or one that suits what was found.
    """
    if not os.path.isfile(path):
        raise UserError(f"{what} {path} {_instead_of_a_file(path)}", fix)
    if os.path.getsize(path) == 0:
        raise UserError(f"{what} {path} is empty (0 bytes)", fix)
    if told := instead_of_content(path):
        raise UserError(f"{what} {path} is {told[0]}", told[1])


def instead_of_content(path: str | os.PathLike) -> tuple[str, str] | None:
    """Recognise what downloads leave in place of a file: return what it is and what to do; None: nothing."""
    try:
        with open(path, "rb") as file:
            begin = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except OSError:
        return None  # its reader says why
    if begin.startswith(LFS_POINTER):
        return "a pointer of Git LFS, not the file itself", "fetch it with git lfs pull, or download the file"
    if begin.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page that was saved under that name", "download the file itself"
    return None


def read_weights(path: Path, what: str, fix: str) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` or a torch file: a dict of them, or one in `WRAPPERS`.

    They are mapped from the file: what nobody reads is not read. Values beside the tensors are left out.

    Args:
        path: of a file that `require_file` has let pass.
        what: the file, for messages.
        fix: what to do about one that cannot be used.

    Raises:
        UserError: if it cannot be read, is damaged, needs code to be run, or holds none or other tensors than
            `check_weights` lets pass.
    """
    if path.suffix == ".safetensors":
        with readable(path, what, fix):
            content: Any = load_file(path)
    else:
        content = read_torch_file(path, what, fix)
        check_tensor_records(path, what, fix)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {}
    if isinstance(content, dict):
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        found = "an empty dict" if content == {} else f"a {type(content).__name__}"
        raise UserError(f"{what} {path}: expected a dict of tensors, found {found}", fix)
    check_weights(tensors, f"{what} {path}")
    return tensors


def read_torch_file(path: Path, what: str, fix: str) -> Any:
    """Return what ``torch.save`` wrote, on the CPU; tensors are mapped from the file where it is an archive.

    Raises:
        UserError: if it is no such file, is damaged (of an archive's tensors `check_tensor_records` tells),
            or needs code to be run.
    """
    with readable(path, what, fix):
        mapped = _is_archive(path)
        if mapped:
            check_records(path, lambda name: name.endswith(PICKLE))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd files, which are refused anyway
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)


def check_tensor_records(path: Path, what: str, fix: str) -> None:
    """Compare the tensors in a torch file with the checksums of its format, if it has them.

    Raises:
        UserError: if it is damaged.
    """
    with readable(path, what, fix):
        if _is_archive(path):
            check_records(path, lambda name: not name.endswith(PICKLE))


def check_weights(state: Mapping[Any, Any], source: str) -> None:
    """Check that a state_dict from a file has numbers that can be copied: dense tensors by their names.

    Raises:
        UserError: if it is empty, or something else is in it.
    """
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{source} holds no model weights: expected a state_dict, or one under 'model'")
    for name, value in state.items():
        if odd := _odd_kind(value) if isinstance(name, str) else "by no name":
            raise UserError(f"{source}: {name!r} is a tensor {odd}", "save dense tensors by their names")


def misfit(given: Tensor, own: Tensor, reshaped: bool = False) -> str:
    """Say why `own` cannot take the numbers of `given`; empty if it can: both floats, for one, of one shape.

    Args:
        reshaped: another shape is no reason.
    """
    kinds = [(x.is_floating_point(), x.is_complex(), x.dtype == torch.bool) for x in (given, own)]
    if kinds[0] != kinds[1]:
        return f"{given.dtype} instead of {own.dtype}"
    if given.shape != own.shape and not reshaped:
        return f"{tuple(given.shape)} instead of {tuple(own.shape)}"
    return ""


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Check that no float is NaN, infinite, or infinite as soon as it is a float32, as models have them.

    Reads every number once, and makes no copy of them.

    Raises:
        UserError: naming the first tensor that has such a number.
    """
    for name, value in state.items():
        if value.is_floating_point() and value.numel():
            least, most = torch.aminmax(value.detach())  # NaN if one is
            if not (torch.isfinite(least.float()) and torch.isfinite(most.float())):
                found = "NaN" if torch.isnan(least) else "a number that is infinite in float32"
                raise UserError(
                    f"{source}: {name} has {found}, so that the model would compute nothing",
                    "use another file: this one is of a training that diverged, or is damaged",
                )


@contextmanager
def readable(path: Path, what: str, fix: str) -> Iterator[None]:
    """Turn the failure of the block to read a file of tensors, whatever it is, into a UserError."""
    try:
        yield
    except pickle.UnpicklingError as error:
        if _is_archive(path) or _begin(path)[:1] == b"\x80":
            raise UserError(
                f"{what} {path} holds Python objects beside tensors and plain values, and loading them"
                " could run code: refused",
                "save its state_dict alone, from a source that you trust",
            ) from error
        raise UserError(f"{what} {path} is not a PyTorch file", fix) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        if path.suffix == ".safetensors":
            problem = f"cannot be read as safetensors ({reason})"
        elif isinstance(error, OSError) and error.strerror:
            problem = f"cannot be read ({error.strerror})"
        else:
            problem = "is truncated or damaged" if _is_archive(path) else "is not a readable PyTorch file"
        raise UserError(f"{what} {path} {problem}", fix) from error


def _instead_of_a_file(path: Path) -> str:
    if os.path.isdir(path):
        return "is a folder, not a file"
    if os.path.exists(path):
        return "is no file, but a pipe or a device"
    return f"not found, a link to {os.readlink(path)}" if os.path.islink(path) else "not found"


def _odd_kind(value: Tensor) -> str:
    """Name what keeps a tensor's numbers from being copied; empty if nothing."""
    if value.is_quantized:
        return "quantized"
    if value.is_nested or value.layout != torch.strided or value.device.type != "cpu":
        return f"{'nested' if value.is_nested else value.layout} on {value.device}"
    if value.is_floating_point() and value.dtype.itemsize < 2:
        return f"of {value.dtype}, which means nothing without its scale"
    return ""


def _begin(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(len(ZIP_MAGIC))
    except OSError:
        return b""


def _is_archive(path: Path) -> bool:
    return _begin(path) == ZIP_MAGIC
