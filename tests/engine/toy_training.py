"""A model and data small enough to train in milliseconds."""

import numpy as np
import torch
from torch import nn

DIM, IDENTITIES = 6, 5


class ToyModel(nn.Module):
    """A linear layer, BatchNorm, dropout and a classifier: everything that a resume could get wrong."""

    stage = 1
    trainable_from = ()
    not_for_eval = ("heads.",)

    def __init__(self, num_classes: int = IDENTITIES) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM), nn.Dropout(0.3))
        self.heads = nn.Linear(DIM, num_classes)
        self.starts = 0

    def load_pretrained(self) -> None: ...

    def on_train_start(self, train_set, build_loader) -> None:
        self.starts += 1

    def forward(self, batch):
        features = self.backbone(batch["images"])
        if not self.training:
            return features
        return {"loss_cls": nn.functional.cross_entropy(self.heads(features), batch["targets"])}


class ToyLoader:
    """Batch k is a function of k, as the contract of the real loader demands."""

    def __init__(self, start_iter: int = 0, batch_size: int = 8) -> None:
        self.start_iter = start_iter
        self.batch_size = batch_size

    def __len__(self) -> int:
        return 4

    def __iter__(self):
        k = self.start_iter
        while True:
            rng = np.random.default_rng(k)
            targets = rng.integers(0, IDENTITIES, self.batch_size)
            images = rng.normal(size=(self.batch_size, DIM)) + targets[:, None]
            yield {"images": torch.tensor(images, dtype=torch.float32), "targets": torch.tensor(targets)}
            k += 1
