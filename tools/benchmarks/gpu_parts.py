"""The parts of ``benchmark.py gpu``: each measures one thing, beside the plain way of doing it."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastreid.config import CfgNode
from fastreid.data import build_test_loader, build_train_dataset
from fastreid.engine import DefaultTrainer
from fastreid.evaluation import evaluate_features, extract_features
from fastreid.modeling import build_model
from fastreid.utils.complexity import seconds_of
from fastreid.utils.env import amp_dtype, available_cores, exact_float32
from fastreid.utils.errors import UserError
from tools.benchmarks.baselines.encoder import PlainPictures, encode_plainly, plain_vit, train_plainly
from tools.benchmarks.baselines.evaluation import rank_query_by_query
from tools.benchmarks.comparing import matmul_peak, matmul_size
from tools.benchmarks.evaluation import clustered_data
from tools.benchmarks.figures import Figure
from tools.benchmarks.generation import make_cfg, make_model, measure_generation, measure_training
from tools.benchmarks.gpu_settings import measure_settings
from tools.benchmarks.loader import write_crops
from tools.benchmarks.steps import always, seconds_of_steps, training_batch

REPO = Path(__file__).resolve().parents[2]
SAME = 0.999  # cosine of features that are the same but for rounding
BF16 = torch.bfloat16


class Bench:
    """The measurements on one device, each a method of its name, with the models that they share.

    Args:
        sizes: ``batch`` images of a batch, ``steps`` timed training steps, ``sampling`` steps, ``repeats``,
            ``pictures`` that are written and ``images`` that are read of them, ``queries`` and ``gallery``.
        size: "tiny" or "full", of the networks.
        tests: what of the test suite is searched for tests of CUDA.
    """

    def __init__(self, device: torch.device, size: str, sizes: dict[str, int], tests: str) -> None:
        self.device, self.sizes, self.tests = device, sizes, tests
        self.options = argparse.Namespace(
            size=size, views=2, steps=sizes["sampling"], repeats=sizes["repeats"]
        )
        self.targets = device.type == "cuda"  # they are a card's

    @cached_property
    def cfg(self) -> CfgNode:
        return make_cfg(self.options, self.device)

    @cached_property
    def model(self) -> nn.Module:
        """Stage 2 with random weights."""
        return make_model(self.cfg)

    @cached_property
    def encoder(self) -> nn.Module:
        """Stage 1 with random weights."""
        cfg = self.cfg.clone()
        cfg.use_method("SDReIDStage1")
        cfg.SOLVER.BASE_LR = 1e-5  # many steps on one batch from random weights, which must stay finite
        torch.manual_seed(0)
        return build_model(cfg)

    @cached_property
    def plain_encoder(self) -> nn.Module:
        vit = self.encoder.backbone
        sizes = vit.feat_dim, len(vit.blocks), vit.blocks[0].attn.num_heads
        return plain_vit(self.cfg, *sizes, self.cfg.MODEL.HEADS.NUM_CLASSES).to(self.device)

    def figure(
        self, part: str, what: str, value: float, unit: str = "", at_least: float | None = None
    ) -> Figure:
        return Figure(part, what, value, unit, at_least if self.targets else None)

    def peak(self) -> Iterable[Figure]:
        """Matrix products, which the shares of the peak refer to."""
        with exact_float32():
            for dtype in (BF16, torch.float32):
                name = str(dtype).removeprefix("torch.")
                what = f"product of two matrices of {matmul_size(self.device):,} squared, {name}"
                yield self.figure("peak", what, matmul_peak(dtype, self.device) / 1e12, "TFLOP/s")

    def stage1(self) -> Iterable[Figure]:
        """Stage 1's whole step, losses, clipping and checks included, against cross entropy on timm's ViT."""
        cfg, count, steps = self.encoder.cfg, self.sizes["batch"], self.sizes["steps"]
        batch = training_batch(cfg, count, pinned=self.device.type == "cuda")
        amp = amp_dtype(cfg.SOLVER.AMP, self.device)
        plain = self.plain_encoder.train()
        optimizer = torch.optim.SGD(plain.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
        own = DefaultTrainer.build_optimizer(cfg, self.encoder)
        seconds: dict[str, list[float]] = {"plain": [], "own": []}
        train_plainly(plain, optimizer, batch, steps, amp)  # warms up
        for _ in range(self.sizes["repeats"]):
            work = partial(train_plainly, plain, optimizer, batch, steps, amp)
            seconds["plain"].append(seconds_of(work, self.device))
            seconds["own"].append(seconds_of_steps(cfg, self.encoder, own, always(batch), steps))
        median = {name: statistics.median(values) for name, values in seconds.items()}
        rate, ratio = count * steps / median["own"], median["plain"] / median["own"]
        yield self.figure("stage1", f"training step of {count}", rate, "images/s")
        yield self.figure("stage1", "speed over that of timm's ViT under autocast", ratio, "x", 1.0)

    def generation(self) -> Iterable[Figure]:
        """From the encoder's outputs to generated features, against the plain float32 loop."""
        count = self.sizes["batch"]
        with exact_float32():
            (_, own), cosine = measure_generation(self.cfg, self.model, self.options, count)
        yield self.figure("generation", f"{own.method}, batches of {count}", own.rate, "images/s")
        yield self.figure("generation", "speed over that of the plain float32 loop", own.ratio, "x", 4.0)
        yield self.figure("generation", "share of the peak", 100 * own.peak_share, "%", 40.0)
        yield self.figure("generation", "memory", own.peak_bytes / 2**30, "GB")
        yield self.figure("generation", "lowest cosine to the plain loop's features", cosine, "", SAME)

    def stage2(self) -> Iterable[Figure]:
        """Stage 2's step from cached features, against a float32 step from pictures."""
        count = self.sizes["batch"]
        with exact_float32():
            (_, own), losses = measure_training(self.cfg, self.model, self.options, count)
        yield self.figure("stage2", f"training step, {own.method}, of {count}", own.rate, "images/s")
        yield self.figure("stage2", "speed over that of the plain float32 step", own.ratio, "x")
        yield self.figure("stage2", "memory", own.peak_bytes / 2**30, "GB")
        yield self.figure("stage2", "loss over the plain step's", losses["ours"] / losses["plain"])

    def agreement(self) -> Iterable[Figure]:
        """Features of the same pictures and weights on the CPU and on the device."""
        model = self.model.eval()
        generates_in_amp, model.generates_in_amp = model.generates_in_amp, False
        batch = training_batch(self.cfg, 2, pinned=False)
        names = [{"images": image, "img_paths": f"{row}.jpg"} for row, image in enumerate(batch["images"])]
        cases = {None: "float32", BF16: "bf16"}
        expected = extract_features(model.cpu(), DataLoader(names, 2))
        model.to(self.device)
        found = {amp: extract_features(model, DataLoader(names, 2), amp=amp) for amp in cases}
        model.generates_in_amp = generates_in_amp
        for amp, name in cases.items():
            cosine = lowest_cosine(model, expected, found[amp])
            yield self.figure(
                "agreement", f"features in {name}, lowest cosine to the CPU's", cosine, "", SAME
            )

    def extraction(self) -> Iterable[Figure]:
        """From files to features, against PIL and timm's ViT with as many workers."""
        cfg, count = self.encoder.cfg.clone(), self.sizes["images"]
        cfg.DATALOADER.NUM_WORKERS = min(cfg.DATALOADER.NUM_WORKERS, available_cores()) if self.targets else 0
        with tempfile.TemporaryDirectory() as root:
            write_crops(root, self.sizes["pictures"])
            cfg.DATASETS.ROOT = root
            samples = build_train_dataset(cfg).samples
            samples = (samples * -(-count // len(samples)))[:count]
            loader = build_test_loader(cfg, samples)
            pictures = PlainPictures([sample.path for sample in samples], tuple(cfg.INPUT.SIZE_TEST))
            options = {"num_workers": loader.num_workers, "pin_memory": loader.pin_memory}
            plain_loader = DataLoader(pictures, cfg.TEST.IMS_PER_BATCH, **options)
            work = {
                "float32": partial(extract_features, self.encoder, loader),
                "bf16": partial(extract_features, self.encoder, loader, amp=BF16),
                "plain": partial(encode_plainly, self.plain_encoder.eval(), plain_loader, BF16),
            }
            seconds = {name: seconds_of(each, self.device) for name, each in work.items()}
        for name in ("float32", "bf16"):
            what = f"files to features in {name}, {loader.num_workers} workers"
            yield self.figure("extraction", what, count / seconds[name], "images/s")
        ratio = seconds["plain"] / seconds["bf16"]
        yield self.figure("extraction", "speed in bf16 over that of PIL and timm's ViT", ratio, "x")

    def evaluation(self) -> Iterable[Figure]:
        """Features to metrics, against the matrix of distances, sorted row by row."""
        data = clustered_data(self.sizes["queries"], self.sizes["gallery"], 768)
        results: dict[str, Any] = {}

        def own() -> None:
            results["own"] = evaluate_features(data.q_feats, data.g_feats, *data.labels, device=self.device)

        def plain() -> None:
            results["plain"] = rank_query_by_query(data.q_feats, data.g_feats, *data.labels, self.device)

        seconds = {work.__name__: seconds_of(work, self.device) for work in (own, plain)}
        what = f"{self.sizes['queries']:,} x {self.sizes['gallery']:,} features of 768 to metrics"
        difference = abs(results["own"][1].mean() - np.mean(results["plain"]))
        yield self.figure("evaluation", what, seconds["own"], "s")
        yield self.figure("evaluation", "speed over that of sorting", seconds["plain"] / seconds["own"], "x")
        yield self.figure("evaluation", "difference of mAP to that of sorting", 100 * difference, "points")

    def settings(self) -> Iterable[Figure]:
        """Each setting that is for speed against its opposite."""
        encoder, model, sizes = self.encoder, self.model, self.sizes
        for what, ratio in measure_settings(encoder, model, sizes):
            yield self.figure("settings", f"{what}: speed over that without", ratio, "x")

    def cuda_tests(self) -> Iterable[Figure]:
        """The tests that need CUDA."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", f"--junitxml={report}", self.tests]
            subprocess.run(command, cwd=REPO, capture_output=True, check=False)
            counts = suite_counts(report)
        ran = counts["tests"] - counts["skipped"]
        good = ran - counts["failures"] - counts["errors"]
        if not ran:
            raise UserError(
                f"of the tests of CUDA in {self.tests} none ran, {counts['skipped']} were skipped"
            )
        yield self.figure("cuda_tests", f"of {ran} tests of CUDA passed", 100 * good / ran, "%", 100.0)


def lowest_cosine(model: nn.Module, expected: Tensor, found: Tensor) -> float:
    """Compare features (N, D) part by part."""
    widths = list(model.feature_parts().values())
    pairs = zip(expected.split(widths, dim=1), found.split(widths, dim=1), strict=True)
    return min(torch.cosine_similarity(*pair, dim=1).min().item() for pair in pairs)


def suite_counts(report: Path) -> dict[str, int]:
    """Return what pytest's XML report counts.

    Raises:
        UserError: if pytest wrote none.
    """
    if not report.is_file():
        raise UserError("pytest ended without a report", "pip install -r tests/requirements.txt")
    suites = list(ElementTree.parse(report).iter("testsuite"))
    names = ("tests", "failures", "errors", "skipped")
    return {name: sum(int(suite.get(name, 0)) for suite in suites) for name in names}
