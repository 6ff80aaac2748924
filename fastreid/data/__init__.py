"""Benchmarks, samplers, transforms and loaders."""

from fastreid.data.datasets import DATASET_REGISTRY, ReIDDataset, Sample, describe, open_dataset
from fastreid.data.images import read_image
from fastreid.data.loaders import (
    build_test_datasets,
    build_test_loader,
    build_train_loader,
    fit_batch_size,
)
from fastreid.data.samplers import SAMPLER_REGISTRY, Draw
from fastreid.data.train_set import TrainSet, build_train_dataset
from fastreid.data.transforms import build_transforms
