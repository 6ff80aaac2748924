"""Trained models as ONNX files, each compared with PyTorch before it counts as written."""

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastreid.deploy.export_check import Agreement, check_part, onnx_session, run_onnx, run_pt2
from fastreid.modeling import MetaArch
from fastreid.modeling.meta_arch.export import draw_images
from fastreid.structures import ExportPart, Tensors
from fastreid.utils.env import code_version
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import write_json

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TRACED_BATCH = 3  # 1 would be taken for a constant, and 2 is a common size of other things
MAX_WEIGHT_BYTES = 1_900_000_000  # in one file: protobuf ends at 2 GiB
DESCRIPTION = "export.json"


def export_model(model: MetaArch, folder: str | Path, with_pt2: bool = False) -> list[Agreement]:
    """Write `model` to `folder` as ONNX files; docs/export.md says what is in them.

    The folder appears complete and checked, in the place of an earlier export, or not at all.

    Args:
        model: of any method. It is moved to the CPU and to eval mode.
        folder: does not exist, is empty, or holds an earlier export.
        with_pt2: also write what ``torch.export`` makes of each part, as ``.pt2``.

    Raises:
        UserError: if a package is missing, the folder holds something else or cannot be written, or a file
            does not agree with PyTorch.
    """
    check_export(type(model))
    model = model.cpu().eval().requires_grad_(False)
    with replaced_folder(Path(folder)) as staging:
        files, agreements = {}, []
        for part in tqdm(model.export_parts(), desc="export", unit="file", disable=not sys.stderr.isatty()):
            files[part.name], checked = export_part(part, staging, with_pt2)
            agreements += checked
        for name, tensors in model.export_extras().items():
            np.savez(staging / f"{name}.npz", **{key: value.numpy() for key, value in tensors.items()})
        agreements += _check_folder(model, staging)
        description = {
            "fastreid": code_version(),
            "torch": torch.__version__,
            "method": type(model).__name__,
            "feature_parts": model.feature_parts(),
            "files": files,
            "checks": [agreement._asdict() for agreement in agreements],
        }
        write_json(staging / DESCRIPTION, description)
    return agreements


def check_export(method: type[MetaArch]) -> None:
    """Check what an export needs.

    Raises:
        UserError: if torch is too old, onnx, onnxscript or onnxruntime is not installed, or a feature of the
            method depends on its batch.
    """
    if method.batch_dependent:
        raise UserError(
            f"{method.__name__} cannot be exported: a feature of it depends on the other images of the batch",
            "export a method whose features depend on the picture alone",
        )
    if torch.__version__ < (2, 5):
        raise UserError(
            f"export needs torch 2.5 or newer, this is {torch.__version__}", "pip install -U torch"
        )
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {', '.join(missing)}", f"pip install {' '.join(missing)}")


def export_part(part: ExportPart, folder: Path, with_pt2: bool) -> tuple[dict[str, Any], list[Agreement]]:
    """Write one part and check it; return its file's description, and how well it agrees."""
    inputs = part.draw_inputs(TRACED_BATCH)
    batch = torch.export.Dim("batch", max=part.max_batch)
    with torch.no_grad():
        program = torch.export.export(
            part.module,
            tuple(inputs.values()),
            dynamic_shapes=tuple({0: batch} if value.ndim else None for value in inputs.values()),
        )
    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=list(inputs),
        output_names=list(part.outputs),
        dynamic_shapes=({0: "batch"}, *[None] * (len(inputs) - 1)),  # only names what the program has
        verbose=False,
    )
    path = folder / f"{part.name}.onnx"
    weight_bytes = sum(value.nbytes for value in part.module.state_dict().values())
    exported.save(path, external_data=weight_bytes > MAX_WEIGHT_BYTES)
    opset = exported.model.opset_imports[""]
    del exported  # it holds a copy of the weights
    session = onnx_session(path)
    agreements = check_part(part, path.name, partial(run_onnx, session))
    if with_pt2:
        pt2 = path.with_suffix(".pt2")
        torch.export.save(program, pt2)
        agreements += check_part(part, pt2.name, partial(run_pt2, torch.export.load(pt2).module()))
    return {"opset": opset, **_describe(session)}, agreements


def _describe(session: Any) -> dict[str, Any]:
    """Return ``{"inputs": {name: {"type", "shape"}}, "outputs": …}``."""
    described = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {
        side: {value.name: {"type": value.type, "shape": value.shape} for value in values}
        for side, values in described.items()
    }


def _check_folder(model: MetaArch, folder: Path) -> list[Agreement]:
    """Compare the features that all files give together with what evaluation computes."""
    from fastreid.deploy.onnx_model import OnnxReIDModel

    exported = OnnxReIDModel(folder, threads=torch.get_num_threads())

    def run(inputs: Tensors) -> list[Tensor]:
        images, *labels = (value.numpy() for value in inputs.values())
        read = dict(zip([*inputs][1:], labels, strict=True))
        return [torch.from_numpy(exported.extract(images, model.export_noise(_names(images)), **read))]

    part = ExportPart("model", _Evaluated(model), ("retrieval_feature",), partial(draw_images, model))
    return check_part(part, "all files", run)


class _Evaluated(nn.Module):
    """The model as an evaluation calls it, on images and the labels that it reads."""

    def __init__(self, model: MetaArch) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, *labels: Tensor) -> Tensor:
        read = dict(zip(sorted(self.model.test_labels), labels, strict=True))
        return self.model({"images": images, "img_paths": _names(images), **read})


def _names(images: Sequence) -> list[str]:
    return [f"{number}.jpg" for number in range(len(images))]


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `path` when the block ends well, and else disappears.

    Raises:
        UserError: if `path` holds something else than an earlier export, or cannot be written.
    """
    path = path.absolute()
    if path.exists() and not (path / DESCRIPTION).is_file() and (path.is_file() or any(path.iterdir())):
        raise UserError(f"{path} exists and is no earlier export", "name another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
            staging = Path(temporary, "new")
            staging.mkdir()
            yield staging
            for file in staging.iterdir():
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
            if path.exists():
                path.rename(Path(temporary, "old"))
            staging.rename(path)
    except OSError as error:
        raise UserError(f"cannot write the export {path}: {error.strerror or error}") from error
