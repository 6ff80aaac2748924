"""Settings for speed, one by one: the trainer's own steps, or generation, with and without it in turns."""

import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import nn

from fastreid.config import CfgNode
from fastreid.data import build_train_dataset, build_train_loader
from fastreid.engine import DefaultTrainer
from fastreid.modeling.meta_arch.sdreid.cast_once import KINDS, cast_frozen_weights_once
from fastreid.structures import Batch
from fastreid.utils.complexity import seconds_of
from fastreid.utils.env import available_cores, exact_float32
from tools.benchmarks.generation import make_conditions
from tools.benchmarks.loader import write_crops
from tools.benchmarks.steps import always, seconds_of_steps, training_batch

LR = 1e-5  # many steps from random weights, which must stay finite


def measure_settings(
    encoder: nn.Module, model: nn.Module, sizes: dict[str, int]
) -> Iterator[tuple[str, float]]:
    """Yield ``(setting and work, speed with it over the speed without it)``, by the medians of their turns.

    Args:
        encoder: Stage 1; it trains here, and so does `model`.
        model: Stage 2.
        sizes: as `Bench` has them.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_crops(folder, sizes["pictures"])
        cfg = training_cfg(model.cfg, folder, sizes["batch"])
        train_set = build_train_dataset(cfg)
        read = partial(build_train_loader, cfg, train_set)
        with model.training_batches(cfg, train_set, read) as read_encoded:
            settings = _Settings(encoder, model, cfg, sizes, read, read_encoded)
            for what, seconds_of_turn in settings.all().items():
                yield what, gain(seconds_of_turn, sizes["repeats"])


def gain(seconds_of_turn: Callable[[bool], float], turns: int) -> float:
    """Return by how many times the work is faster with a setting (True) than without it."""
    pairs = [(seconds_of_turn(True), seconds_of_turn(False)) for _ in range(turns)]
    on, off = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    return off / on


def training_cfg(cfg: CfgNode, folder: str, batch: int) -> CfgNode:
    """Describe Stage 2's training from cached features, of the pictures in `folder`."""
    cfg = cfg.clone()
    cfg.DATASETS.ROOT = cfg.OUTPUT_DIR = folder
    cfg.DATALOADER.NUM_WORKERS = min(cfg.DATALOADER.NUM_WORKERS, available_cores())
    if torch.device(cfg.MODEL.DEVICE).type == "cpu":
        cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR = batch, LR
    cfg.MODEL.SDMODEL.CACHE_FEATURES = True
    return cfg


class _Settings:
    """A method each, which sets its setting to `on` and returns the seconds of the work."""

    def __init__(
        self,
        encoder: nn.Module,
        model: nn.Module,
        cfg: CfgNode,
        sizes: dict[str, int],
        read: Callable[[int], Iterable[Batch]],
        read_encoded: Callable[[int], Iterable[Batch]],
    ) -> None:
        self.encoder, self.model, self.cfg, self.count = encoder, model, cfg, sizes["batch"]
        self.steps = max(1, sizes["steps"] // 2)
        self.read, self.read_encoded = read, read_encoded
        self.pictures = training_batch(encoder.cfg, self.count, pinned=encoder.device.type == "cuda")
        self.encoded = next(iter(read_encoded(0)))
        self.conditions = make_conditions(cfg, model, self.count)

    def all(self) -> dict[str, Callable[[bool], float]]:
        """Return them by name; the one that may take minutes is the last."""
        return {
            "SOLVER.FUSED, Stage-1 step": self.fused,
            "TEST.SDMODEL.AMP, generation": self.amp,
            "MODEL.SDMODEL.CHANNELS_LAST, generation": partial(self.channels_last, self.generation),
            "MODEL.SDMODEL.CHANNELS_LAST, Stage-2 step": partial(self.channels_last, self.step),
            "frozen weights cast once, generation": partial(self.cast_once, self.generation),
            "frozen weights cast once, Stage-2 step": partial(self.cast_once, self.step),
            "MODEL.SDMODEL.CACHE_FEATURES, Stage-2 step, loader included": self.cached,
            "MODEL.BACKBONE.COMPILE, Stage-1 step": self.compiled,
        }

    def fused(self, on: bool) -> float:
        cfg = self.encoder.cfg.clone()
        cfg.SOLVER.FUSED = on
        return self.encoder_step(cfg)

    def amp(self, on: bool) -> float:
        self.model.generates_in_amp = on
        seconds = self.generation()
        self.model.generates_in_amp = True
        return seconds

    def channels_last(self, work: Callable[[], float], on: bool) -> float:
        unet = self.model.generator.unet
        unet.to(memory_format=torch.channels_last if on else torch.contiguous_format)
        seconds = work()
        unet.to(memory_format=torch.channels_last)
        return seconds

    def cast_once(self, work: Callable[[], float], on: bool) -> float:
        unet = self.model.generator.unet
        plain = {once: kind for kind, once in KINDS.items()}
        for layer in () if on else unet.modules():
            layer.__class__ = plain.get(type(layer), type(layer))
        seconds = work()
        cast_frozen_weights_once(unet)
        return seconds

    def cached(self, on: bool) -> float:
        return self.step(self.read_encoded if on else self.read)

    def compiled(self, on: bool) -> float:
        backbone = self.encoder.backbone
        if on:
            backbone.compile()  # what it has compiled before it finds again
        seconds = self.encoder_step(self.encoder.cfg)
        backbone._compiled_call_impl = None
        return seconds

    def encoder_step(self, cfg: CfgNode) -> float:
        optimizer = DefaultTrainer.build_optimizer(cfg, self.encoder)
        return seconds_of_steps(cfg, self.encoder, optimizer, always(self.pictures), self.steps)

    def step(self, make_loader: Callable[[int], Iterable[Batch]] | None = None) -> float:
        """Measure Stage 2's, by default on one batch of encoded pictures."""
        optimizer = DefaultTrainer.build_optimizer(self.cfg, self.model)  # its numbers lie as the weights do
        make_loader = make_loader or always(self.encoded)
        return seconds_of_steps(self.cfg, self.model, optimizer, make_loader, self.steps)

    def generation(self) -> float:
        """Measure the second of two calls."""
        id_tokens, names = self.conditions
        model = self.model.eval()

        def generate() -> None:
            with torch.inference_mode(), exact_float32(), model.generation_precision():
                model.generator.generate(id_tokens, model.memory_bank.prototypes, names)

        generate()
        return seconds_of(generate, model.device)
