"""The part that every method exports: from pictures to the feature."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastreid.structures import Batch, ExportPart, Tensors


class Encoder(nn.Module):
    """A whole model on pictures and the labels that it reads."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.label_names = sorted(model.test_labels)

    def forward(self, images: Tensor, first: Tensor | None = None, second: Tensor | None = None) -> Tensor:
        """Map uint8 RGB (B, 3, H, W) and int64 labels (B,), by their names' order, to the feature (B, D)."""
        labels = dict(zip(self.label_names, (first, second), strict=False))
        return self.model({"images": images, **labels})


def encoder_part(model: Any) -> ExportPart:
    """Return the whole of a method whose feature is one pass through its network."""
    return ExportPart("encoder", Encoder(model), ("feature",), partial(draw_images, model))


def draw_images(model: Any, batch_size: int) -> Tensors:
    """Draw random pictures of the model's test size, and labels that it reads: 0 and 1 in turn."""
    shape = (batch_size, 3, *model.cfg.INPUT.SIZE_TEST)
    generator = torch.Generator().manual_seed(batch_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    labels = {name: torch.arange(batch_size) % 2 for name in sorted(model.test_labels)}
    return {"images": images, **labels}


def draw_batch(model: Any, batch_size: int) -> Batch:
    """Draw the same as a batch, whose pictures have file names of their own."""
    return {
        **draw_images(model, batch_size),
        "img_paths": [f"{number}.jpg" for number in range(batch_size)],
    }


def reduced(model: nn.Module, *children: str) -> nn.Module:
    """Return a shallow copy of `model` that has no other children: the others stay out of its file."""
    copied = copy.copy(model)
    copied.__dict__["_modules"] = {name: model.get_submodule(name) for name in children}
    return copied
