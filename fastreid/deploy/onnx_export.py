"""Trained models as ONNX files, each compared with PyTorch before it counts as written."""

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastreid.deploy.export_check import (
    Agreement,
    Part,
    Tensors,
    check_part,
    onnx_session,
    reduced,
    run_onnx,
    run_pt2,
)
from fastreid.modeling.meta_arch.sdreid.stage1 import SDReIDStage1
from fastreid.utils.env import code_version
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import write_json

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TRACED_BATCH = 3  # 1 would be taken for a constant, and 2 is a common size of other things
MAX_WEIGHT_BYTES = 1_900_000_000  # in one file: protobuf ends at 2 GiB
DESCRIPTION = "export.json"


class Encoder(nn.Module):
    """What a model does with images before anything is generated."""

    def __init__(self, model: SDReIDStage1) -> None:
        super().__init__()
        self.model = reduced(model, "backbone", "heads")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """uint8 RGB (B, 3, H, W) -> the post-neck feature (B, E); for Stage 2 also id tokens (B, L-1, D)."""
        encoded = self.model.encode(images)
        feature = self.model.heads(encoded.features).float()
        return (feature,) if self.model.stage == 1 else (feature, encoded.id_tokens)


def export_model(model: SDReIDStage1, folder: str | Path, with_pt2: bool = False) -> list[Agreement]:
    """Write `model` to `folder` as ONNX files; docs/export.md says what is in them.

    The folder appears complete and checked, in the place of an earlier export, or not at all.

    Args:
        model: of either stage. It is moved to the CPU and to eval mode.
        folder: does not exist, is empty, or holds an earlier export.
        with_pt2: also write what ``torch.export`` makes of each part, as ``.pt2``.

    Raises:
        UserError: if a package is missing, the folder holds something else or cannot be written, or a file
            does not agree with PyTorch.
    """
    require_packages()
    model = model.cpu().eval().requires_grad_(False)
    with replaced_folder(Path(folder)) as staging:
        files, agreements = {}, []
        parts = model_parts(model)
        for part in tqdm(parts, desc="export", unit="file", disable=not sys.stderr.isatty()):
            files[part.name], checked = export_part(part, staging, with_pt2)
            agreements += checked
        if model.stage == 2:
            _save_sampling_plan(model, staging)
        agreements += _check_folder(model, staging)
        description = {
            "fastreid": code_version(),
            "torch": torch.__version__,
            "stage": model.stage,
            "files": files,
            "checks": [agreement._asdict() for agreement in agreements],
        }
        write_json(staging / DESCRIPTION, description)
    return agreements


def require_packages() -> None:
    """Raise a `UserError` if torch is too old, or onnx, onnxscript or onnxruntime is not installed."""
    if torch.__version__ < (2, 5):
        raise UserError(
            f"export needs torch 2.5 or newer, this is {torch.__version__}", "pip install -U torch"
        )
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {', '.join(missing)}", f"pip install {' '.join(missing)}")


def model_parts(model: SDReIDStage1) -> list[Part]:
    """The encoder and, of a Stage-2 model, the denoising step and the fusion."""
    if model.stage == 1:
        return [Part("encoder", Encoder(model), ("feature",), partial(draw_images, model))]
    from fastreid.modeling.meta_arch.sdreid.onnx_parts import stage2_parts  # imports diffusers

    encoder = Part("encoder", Encoder(model), ("feature", "id_tokens"), partial(draw_images, model))
    return [encoder, *stage2_parts(model, encoder)]


def draw_images(model: SDReIDStage1, batch_size: int) -> Tensors:
    """Random pictures of the model's test size."""
    shape = (batch_size, 3, *model.cfg.INPUT.SIZE_TEST)
    generator = torch.Generator().manual_seed(batch_size)
    return {"images": torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)}


def export_part(part: Part, folder: Path, with_pt2: bool) -> tuple[dict[str, Any], list[Agreement]]:
    """Write one part and check it; what its file is like, and how well it agrees."""
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
    """``{"inputs": {name: {"type", "shape"}}, "outputs": …}``."""
    described = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {
        side: {value.name: {"type": value.type, "shape": value.shape} for value in values}
        for side, values in described.items()
    }


def _save_sampling_plan(model: SDReIDStage1, folder: Path) -> None:
    from fastreid.modeling.meta_arch.sdreid.onnx_parts import sampling_plan

    plan = sampling_plan(model.generator, len(model.memory_bank.prototypes))._asdict()
    np.savez(folder / "sampling.npz", **{name: value for name, value in plan.items() if value is not None})


def _check_folder(model: SDReIDStage1, folder: Path) -> list[Agreement]:
    """Compare the features that all files give together with what evaluation computes."""
    from fastreid.deploy.onnx_model import OnnxReIDModel

    exported = OnnxReIDModel(folder, threads=torch.get_num_threads())

    def run(inputs: Tensors) -> list[Tensor]:
        noise = None
        if model.stage == 2:
            from fastreid.modeling.meta_arch.sdreid.onnx_parts import image_noise

            noise = image_noise(model, _names(inputs["images"]))
        return [torch.from_numpy(exported.extract(inputs["images"].numpy(), noise))]

    part = Part("model", _Evaluated(model), ("retrieval_feature",), partial(draw_images, model))
    return check_part(part, "all files", run)


class _Evaluated(nn.Module):
    def __init__(self, model: SDReIDStage1) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model({"images": images, "img_paths": _names(images)})


def _names(images: Tensor) -> list[str]:
    return [f"{number}.jpg" for number in range(len(images))]


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `path` when the block ends well, and else disappears.

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
