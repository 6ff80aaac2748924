"""Trials of a model on tensors without numbers, which costs neither memory nor arithmetic."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fastreid.checks.report import complaints
from fastreid.config import CfgNode
from fastreid.engine import DefaultTrainer
from fastreid.modeling import MetaArch, build_meta_model
from fastreid.modeling.meta_arch.export import draw_batch
from fastreid.structures import Batch, Finding
from fastreid.utils.complexity import fake_tensors
from fastreid.utils.errors import UserError

logger = logging.getLogger(__name__)

TORCH = str(Path(torch.__file__).parent)


def training_step(cfg: CfgNode, model: MetaArch, batch_size: int) -> torch.Tensor:
    """Return the sum of the losses of a batch, a scalar; within `fake_tensors`.

    Raises:
        UserError: as the model does, for losses that are no scalars or teach nothing.
    """
    zeros = torch.zeros(batch_size, dtype=torch.long)
    batch: Batch = {
        "images": torch.empty(batch_size, 3, *cfg.INPUT.SIZE_TRAIN, dtype=torch.uint8),
        **dict.fromkeys(("targets", "camids", "viewids"), zeros),
        "img_paths": [""] * batch_size,
    }
    return sum(model(batch).values())


def try_model(cfg: CfgNode, model: MetaArch, training: bool = True) -> list[Finding]:
    """Run an evaluation of a batch, and what writing a checkpoint asks of the model.

    Args:
        cfg: the model's own.
        model: on the ``meta`` device; it stays as it is.
    """
    with attempt("evaluation") as findings:
        tried = build_meta_model(cfg, model.names).eval().for_counting()
        with fake_tensors(), torch.no_grad():
            tried.to_empty(device="cpu")
            width = tried(draw_batch(tried, 2)).shape[1]
        findings.append(Finding("ok", "features", f"{width} numbers: {', '.join(model.feature_parts())}"))
    with attempt("checkpoint") as found:
        model.state_dict()
        model.parameter_rules()
        if training:
            DefaultTrainer.build_optimizer(cfg, model)
    return findings + found


@contextmanager
def attempt(what: str) -> Iterator[list[Finding]]:
    """Turn what goes wrong with the model in the block into findings of ``model`` that name the line of code.

    Operations whose result depends on numbers are no mistake: they cannot be tried.

    Yields:
        The list of findings, to which the block adds its own.
    """
    failure: Exception | None = None
    with complaints("model") as findings:
        try:
            yield findings
        except UserError:
            raise
        except Exception as error:
            failure = error
            findings.append(_failed(what, error))
    if failure is not None:
        logger.debug("model", exc_info=failure)


def _failed(what: str, error: Exception) -> Finding:
    from torch._subclasses import fake_tensor

    needs_numbers = (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException)
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if not frame.filename.startswith(TORCH)), frames[-1])
    where = f"{Path(place.filename).name}, line {place.lineno}"
    if isinstance(error, needs_numbers):
        return Finding("warning", "model", f"the {what} is not tried: it depends on numbers ({where})")
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return Finding("error", "model", f"the {what} fails: {message} ({where})", "--debug shows the traceback")
