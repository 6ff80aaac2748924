"""A method, data and a trainer small enough to train in milliseconds."""

from types import SimpleNamespace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastreid.config import CfgNode, get_cfg
from fastreid.engine import DefaultTrainer
from fastreid.modeling import MetaArch
from fastreid.modeling.meta_arch import ParameterRules
from fastreid.structures import Batch, DataNames, Results, Sample

DIM, IDENTITIES = 6, 5
NAMES = DataNames(
    tuple(f"person {number}" for number in range(IDENTITIES)), {0: "Cam1"}, ("aerial", "ground")
)


class Encoded(NamedTuple):
    features: Tensor


class ToyModel(MetaArch):
    """A linear layer, BatchNorm, dropout and a classifier: everything that a resume could get wrong."""

    def __init__(self, num_classes: int = IDENTITIES, cfg: CfgNode | None = None) -> None:
        nn.Module.__init__(self)
        self.cfg, self.names = cfg or get_cfg(), NAMES
        self.backbone = nn.Sequential(nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM), nn.Dropout(0.3))
        self.heads = nn.Linear(DIM, num_classes)
        self.starts = 0
        self.may_start_without: tuple[str, ...] = ()

    def load_pretrained(self) -> None: ...

    def on_train_start(self, train_set, build_loader) -> None:
        self.starts += 1

    def encode(self, batch: Batch) -> Encoded:
        return Encoded(self.backbone(batch["images"]))

    def losses(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        return {"loss_cls": nn.functional.cross_entropy(self.heads(encoded.features), batch["targets"])}

    def features(self, encoded: Encoded, batch: Batch, parts=None) -> Tensor:
        return encoded.features

    def feature_parts(self) -> dict[str, int]:
        return {"person": DIM}

    def parameter_rules(self) -> ParameterRules:
        return ParameterRules(
            heads=("heads.",), training_only=("heads.",), may_start_without=self.may_start_without
        )


class ToyLoader:
    """Batch k is a function of k, as the contract of the real loader demands."""

    def __init__(self, start_iter: int = 0, batch_size: int = 8, length: int = 4) -> None:
        self.start_iter = start_iter
        self.batch_size = batch_size
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self):
        k = self.start_iter
        while True:
            rng = np.random.default_rng(k)
            targets = rng.integers(0, IDENTITIES, self.batch_size)
            images = rng.normal(size=(self.batch_size, DIM)) + targets[:, None]
            yield {"images": torch.tensor(images, dtype=torch.float32), "targets": torch.tensor(targets)}
            k += 1


class ToyTrainer(DefaultTrainer):
    """DefaultTrainer on the toy method and data, by its seams alone.

    Attributes:
        means: what evaluations return, in turn; then 50.
        evaluated: what they have returned.
        epoch_length: iterations.
    """

    means: ClassVar[list[float]]
    evaluated: ClassVar[list[float]]
    epoch_length: ClassVar[int] = 4

    @classmethod
    def build_train_set(cls, cfg):
        samples = [Sample(f"{number}.jpg", number % IDENTITIES, 0, number % 2) for number in range(40)]
        return SimpleNamespace(
            names=NAMES, num_classes=IDENTITIES, num_views=2, samples=samples, datasets=[], held_out=[]
        )

    @classmethod
    def build_test_sets(cls, cfg):
        return []

    def build_train_loader(self, start_iter: int = 0) -> ToyLoader:
        return ToyLoader(start_iter, length=self.epoch_length)

    @classmethod
    def build_model(cls, cfg: CfgNode, names: DataNames) -> ToyModel:
        torch.manual_seed(cfg.MODEL.SEED)
        return ToyModel(cfg.MODEL.HEADS.NUM_CLASSES, cfg)

    @classmethod
    def test(cls, cfg, model, test_sets) -> Results:
        mean = cls.means.pop(0) if cls.means else 50.0
        assert mean >= 0
        torch.rand(3)  # an evaluation that draws random numbers must not disturb training
        model.eval()
        cls.evaluated.append(mean)
        return {"A": {"mAP": mean, "mean": mean - 1}, "B": {"mAP": mean, "mean": mean + 1}}
