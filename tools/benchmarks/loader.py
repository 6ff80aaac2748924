"""The training pipeline against plain PIL, as `parsers.loader` describes."""

import argparse
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from fastreid.config import CfgNode, get_cfg
from fastreid.data import Draw, Sample, TrainSet, build_train_dataset, build_train_loader

CROP_SIZES = ((300, 120), (160, 60))  # height, width: near and far cameras
IMAGES_PER_ID = 10


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        write_crops(root, args.images)
        rates = measure(root, args)
    rows = []
    for workers in args.workers:
        plain, ours = rates["PIL", workers], rates["fastreid", workers]
        ratio = statistics.median(ours) / statistics.median(plain)
        rows.append([workers, _summary(plain), _summary(ours), f"{ratio:.2f}x"])
    print(
        f"{os.cpu_count()} CPU cores, torch {torch.__version__}, {args.images} JPEG files,"
        f" median (min - max) of {args.repeats} x {args.batches * args.batch_size} images"
    )
    print(tabulate(rows, ["workers", "PIL images/s", "fastreid images/s", "ratio"], disable_numparse=True))


def measure(root: str, args: argparse.Namespace) -> dict[tuple[str, int], list[float]]:
    """Measure images per second of each pipeline and worker count, a figure a repeat; they alternate."""
    cases = {}
    for workers in args.workers:
        cfg = make_cfg(root, args.batch_size, workers)
        train_set = build_train_dataset(cfg)
        loader = build_train_loader(cfg, train_set)
        plain = DataLoader(
            PlainPilSet(cfg, train_set), batch_sampler=loader.batch_sampler, num_workers=workers
        )
        cases["PIL", workers] = iter(plain)
        cases["fastreid", workers] = iter(loader)

    rates: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    steps = [case for _ in range(args.repeats) for case in cases]
    for case in tqdm(steps, unit="repeat", disable=not sys.stderr.isatty()):
        prefetched = 2 * case[1] + 1  # made ready while another pipeline was timed
        seconds = time_batches(cases[case], warm_up=2 * prefetched, batches=args.batches)
        rates[case].append(args.batches * args.batch_size / seconds)
    return rates


def time_batches(batches_of: Iterator[Any], warm_up: int, batches: int) -> float:
    for _ in range(warm_up):
        next(batches_of)
    start = time.perf_counter()
    for _ in range(batches):
        next(batches_of)
    return time.perf_counter() - start


def make_cfg(root: str, batch_size: int, workers: int) -> CfgNode:
    """Describe Stage 1's input, on the CPU."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.ROOT = root
    cfg.SOLVER.IMS_PER_BATCH = batch_size
    cfg.DATALOADER.NUM_WORKERS = workers
    return cfg


class PlainPilSet(Dataset):
    """The baseline: the same augmentations written with PIL and NumPy, as ReID code commonly has them."""

    def __init__(self, cfg: CfgNode, train_set: TrainSet) -> None:
        self.input = cfg.INPUT
        self.samples: list[Sample] = train_set.samples

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        sample = self.samples[draw.index]
        height, width = self.input.SIZE_TRAIN
        image = Image.open(sample.path).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        border = self.input.PADDING.SIZE
        left, top = random.randint(0, 2 * border), random.randint(0, 2 * border)
        image = ImageOps.expand(image, border).crop((left, top, left + width, top + height))
        if random.random() < self.input.FLIP.PROB:
            image = ImageOps.mirror(image)
        pixels = np.array(image)
        if random.random() < self.input.REA.PROB:
            self._erase(pixels)
        return {
            "images": torch.from_numpy(pixels).permute(2, 0, 1).contiguous(),
            "targets": sample.pid,
            "camids": sample.camid,
            "viewids": sample.viewid,
            "img_paths": sample.path,
        }

    def _erase(self, pixels: np.ndarray) -> None:
        height, width = pixels.shape[:2]
        for _ in range(10):
            area = random.uniform(0.02, 0.33) * height * width
            ratio = math.exp(random.uniform(math.log(0.3), math.log(3.3)))
            h, w = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if h < height and w < width:
                top, left = random.randint(0, height - h), random.randint(0, width - w)
                pixels[top : top + h, left : left + w] = self.input.REA.VALUE
                return


def write_crops(root: str, images: int) -> None:
    """Write a CARGO training folder of smooth noise with grain: JPEG files as hard to decode as crops."""
    rng = np.random.default_rng(0)
    for number in range(images):
        camera = 1 + 6 * (number % 2)
        height, width = (
            round(side * rng.uniform(0.85, 1.15)) for side in CROP_SIZES[number // 2 % len(CROP_SIZES)]
        )
        coarse = rng.integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        pixels = (smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)
        folder = os.path.join(root, "CARGO", "train", f"Cam{camera}")
        os.makedirs(folder, exist_ok=True)
        name = f"Cam{camera}_day_{number // IMAGES_PER_ID}_{number}.jpg"
        Image.fromarray(pixels).save(os.path.join(folder, name), quality=90)


def _summary(rates: list[float]) -> str:
    return f"{statistics.median(rates):.0f} ({min(rates):.0f} - {max(rates):.0f})"
