"""Methods and a backbone as a researcher adds them, small enough to train on a CPU in a moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from worlds.options import ANY_METHOD

from fastreid.config import CfgNode, get_cfg
from fastreid.modeling import META_ARCH_REGISTRY, MetaArch, build_model, fit_config
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.structures import Batch, DataNames
from fastreid.utils.env import preserved_rng_state

CAMERAS = {number: f"Cam{number + 1}" for number in range(13)}  # as CARGO has them
VIEWS = ("aerial", "ground")


class PooledPixels(nn.Module):
    """A backbone of 640 numbers, whatever FEAT_DIM says."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.feat_dim = 640
        self.project = nn.Linear(3 * 8, 640)

    def forward(self, images: Tensor) -> Tensor:
        return self.project(nn.functional.adaptive_avg_pool2d(images, (4, 2)).flatten(1))


class Encoded(NamedTuple):
    features: Tensor


class PlainNet(MetaArch):
    """A backbone and an identity head."""

    def encode(self, batch: Batch) -> Encoded:
        return Encoded(self.backbone(self.pixels(batch)))

    def losses(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        targets = self.labels(batch, "targets")
        return self.identity_losses(self.heads(encoded.features, targets), targets)


class SideNet(PlainNet):
    """Adds a learned vector of the camera and one of the view, as TransReID's side information."""

    test_labels = frozenset({"camids", "viewids"})

    def __init__(self, cfg: CfgNode, names: DataNames = DataNames()) -> None:
        super().__init__(cfg, names)
        self.cameras = nn.Embedding(len(CAMERAS), self.backbone.feat_dim)
        self.views = nn.Embedding(len(VIEWS), self.backbone.feat_dim)

    def encode(self, batch: Batch) -> Encoded:
        side = self.cameras(self.labels(batch, "camids")) + self.views(self.labels(batch, "viewids"))
        return Encoded(super().encode(batch).features + side)


@contextmanager
def registered(*methods: type[MetaArch]) -> Iterator[None]:
    """Register methods and the backbone for the duration of the block."""
    entries = [(META_ARCH_REGISTRY, method) for method in methods] + [(BACKBONE_REGISTRY, PooledPixels)]
    for registry, entry in entries:
        registry.register(entry=entry)
    yield
    for registry, entry in entries:
        del registry._entries[entry.__name__]


def toy_cfg(method: str, data: Path, *options: str) -> CfgNode:
    """A configuration of a toy method on a small CARGO."""
    cfg = get_cfg()
    model = ("MODEL.META_ARCHITECTURE", method, "MODEL.BACKBONE.NAME", "PooledPixels")
    tests = ("DATASETS.ROOT", str(data), "DATASETS.TESTS", "['CARGO_AG']", "TEST.IMS_PER_BATCH", "4")
    cfg.merge_from_list([*ANY_METHOD, *model, "DATASETS.NAMES", "['CARGO']", *tests, *options])
    return cfg


def write_toy_checkpoint(folder: Path, method: str, data: Path) -> Path:
    """Leave behind what training does: model_best.pth and config.yaml, of random weights."""
    cfg = toy_cfg(method, data, "OUTPUT_DIR", str(folder))
    names = DataNames(tuple("abcd"), CAMERAS, VIEWS)
    with preserved_rng_state():
        torch.manual_seed(1)
        model = build_model(fit_config(cfg, 4, VIEWS), names)
    meta = {
        "method": method,
        "num_classes": 4,
        "names": names.to_dict(),
        "feature_parts": model.feature_parts(),
        "config": cfg.dump(),
    }
    torch.save({"model": model.state_dict(), "meta": meta}, folder / "model_best.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder / "model_best.pth"
