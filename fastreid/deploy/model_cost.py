"""The cost of a configuration's model."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from fastreid.config import CfgNode
from fastreid.deploy.labels import dataset_views
from fastreid.engine.trained_model import fit_to_checkpoint, load_trained_model
from fastreid.modeling import build_meta_model, build_model, fit_config, method_of
from fastreid.modeling.meta_arch.export import draw_batch
from fastreid.modeling.weights import named_method
from fastreid.structures import DataNames
from fastreid.utils.checkpoint import load_checkpoint
from fastreid.utils.complexity import (
    Measurement,
    ParameterCount,
    count_flops,
    count_parameters,
    fake_tensors,
    measure,
    part_names,
)
from fastreid.utils.env import amp_dtype, autocast
from fastreid.utils.errors import UserError


class ModelSize(NamedTuple):
    """The numbers of a configuration that hold on any machine."""

    parameters: list[ParameterCount]
    """Of each part, then of the whole model."""
    flops: dict[str, int]
    """Of a batch through the model as evaluation runs it: in each part and in ``total``."""
    notes: list[str]
    """Lines that the method adds."""


class Weights(NamedTuple):
    """The checkpoint of a configuration, as far as it can be used."""

    cfg: CfgNode
    """The configuration that fits it, frozen."""
    names: DataNames
    note: str
    """Where the weights come from, in words."""
    loads: bool


def find_weights(cfg: CfgNode) -> Weights:
    """Look at ``MODEL.WEIGHTS``; weights of another method, or none, mean random ones."""
    path, method, names = cfg.MODEL.WEIGHTS, method_of(cfg).__name__, DataNames()
    if not path or not Path(path).exists():
        reason = f"{path} does not exist" if path else "MODEL.WEIGHTS is empty"
        with suppress(UserError):  # of a CSV file; the views may be told by the configuration
            names = DataNames(views=dataset_views(cfg))
        fitted = fit_config(cfg, 1, names.views)
        classes = fitted.MODEL.HEADS.NUM_CLASSES
        return Weights(fitted, names, f"random ({reason}); classifier of {classes} identities", False)
    checkpoint = load_checkpoint(path)
    fitted, names = fit_to_checkpoint(cfg, checkpoint)
    written_by = named_method(checkpoint["meta"]) or method
    if written_by != method:
        return Weights(fitted, names, f"random ({path} is of {written_by})", False)
    return Weights(fitted, names, path, True)


def model_size(weights: Weights, batch_size: int) -> ModelSize:
    """Count the parameters and the operations of a batch, without allocating or computing anything."""
    with method_of(weights.cfg).stand_in_assets(weights.cfg, with_weights=False) as cfg:
        model = build_meta_model(cfg, weights.names).eval().for_counting()
    parts = part_names(model, opened=model.opened_parts())
    parameters = count_parameters(model, parts)
    model.requires_grad_(False)  # torch's counter cannot take a view of a parameter that asks for a gradient
    with fake_tensors():
        flops = count_flops(model.to_empty(device="cpu"), draw_batch(model, batch_size), parts=parts)
    return ModelSize(parameters, flops, model.count_notes(flops, batch_size))


def measure_parts(weights: Weights, batch_size: int, repeats: int) -> dict[str, Measurement]:
    """Measure time and memory of a batch: of the feature's first part and, if there are more, of all.

    Raises:
        UserError: for weights that do not fit, or a device that is not there.
    """
    with method_of(weights.cfg).stand_in_assets(weights.cfg, with_weights=True) as cfg:
        model = load_trained_model(cfg) if weights.loads else build_model(cfg, weights.names).eval()
    batch, (first, *others) = draw_batch(model, batch_size), model.feature_parts()
    amp = amp_dtype(cfg.TEST.AMP, model.device)
    work = {first: lambda: model(batch, [first])}
    if others:
        work["whole feature"] = lambda: model(batch)
    with torch.inference_mode(), autocast(amp, model.device):
        return {name: measure(each, model.device, repeats) for name, each in work.items()}
