"""Stage 1 of the study: one trained encoder, and everything the generators need of it, encoded once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastreid.config import CfgNode, load_config
from fastreid.data import TrainSet, build_test_datasets, build_train_dataset
from fastreid.data.datasets.held_out import HeldOutProtocol
from fastreid.engine import DefaultTrainer, load_trained_model
from fastreid.evaluation.evaluator import distinct_samples
from fastreid.modeling.meta_arch.sdreid.feature_cache import encode_images
from fastreid.structures import EncoderOutput, RetrievalTask
from fastreid.utils.env import seed_all_rng
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import write_json
from projects.stage2_study.settings import HELD_OUT_GOALS, PARTS, PROTOCOLS

CONFIGS = Path(__file__).with_name("configs")


@dataclass(frozen=True)
class Encoder:
    """The encoder of one layout, seed and number of training identities.

    Attributes:
        held_out: identities of the training split beside `identities`, to choose on.
        data: the folder with a benchmark for every number of training identities.
        options: configuration keys for all of its runs, both stages.
    """

    layout: str
    seed: int
    identities: int
    held_out: int
    data: Path
    output: Path
    options: tuple[Any, ...] = ()

    @property
    def root(self) -> Path:
        """DATASETS.ROOT."""
        return self.data / f"ids{self.identities}"

    @property
    def folder(self) -> Path:
        return self.output / self.layout / f"ids{self.identities}_seed{self.seed}"

    def config(self, name: str, *options: Any) -> CfgNode:
        """Load ``configs/NAME.yml`` for this encoder's data and seed."""
        own = {
            "DATASETS.ROOT": str(self.root),
            "DATASETS.NAMES": [self.layout],
            "DATASETS.TESTS": list(PROTOCOLS[self.layout]),
            "DATASETS.HELD_OUT_IDS": self.held_out,
            "MODEL.SEED": self.seed,
        }
        pairs = [item for pair in own.items() for item in pair]
        return load_config(str(CONFIGS / f"{name}.yml"), [*pairs, *self.options, *options])

    @property
    def weights(self) -> Path:
        return self.folder / "stage1" / "model_best.pth"

    def train(self) -> None:
        """Train Stage 1, or go on with it, or do nothing when it is done; then encode all images.

        Raises:
            UserError: if they are encoded, but a file of them is gone or damaged.
        """
        cfg = self.config("base_stage1", "OUTPUT_DIR", str(self.folder / "stage1"))
        cfg.freeze()
        done = self.test_set / "complete.json"
        if done.exists():
            self._check_encoded(done)
            return
        seed_all_rng(self.seed)
        trainer = DefaultTrainer(cfg)
        trainer.resume_or_load(resume=True)
        trainer.train()
        self._encode()
        write_json(done, {"images": len(self.samples)})

    @property
    def training_set(self) -> Path:
        """The folder with the encoded training images."""
        return self.folder / "training_set"

    @property
    def test_set(self) -> Path:
        """The folder with the encoded `samples`."""
        return self.folder / "test_set"

    @cached_property
    def train_set(self) -> TrainSet:
        return build_train_dataset(self.config("base_stage1"))

    @cached_property
    def splits(self) -> dict[str, list]:
        """The protocols of the ``held out`` and of the ``test`` identities."""
        held_out = list(self.train_set.held_out)
        held_out += [two_way(name, held_out) for name in HELD_OUT_GOALS[self.layout]]
        return {"held out": held_out, "test": build_test_datasets(self.config("base_stage1"))}

    @cached_property
    def samples(self) -> list:
        """The images of all protocols, once each."""
        return distinct_samples(protocol for split in self.splits.values() for protocol in split)

    @cached_property
    def test_rows(self) -> list[int]:
        """The rows of `samples` that show test identities."""
        tested = {sample.path for sample in distinct_samples(self.splits["test"])}
        return [row for row, sample in enumerate(self.samples) if sample.path in tested]

    @cached_property
    def encoded(self) -> EncoderOutput:
        """Of `samples`, in their order: (N, 2, ...), the image as it is and its mirror image."""
        return EncoderOutput(
            *(torch.from_numpy(np.load(self.test_set / f"{name}.npy")) for name in EncoderOutput._fields)
        )

    @cached_property
    def heads(self) -> nn.Module:
        """The identity head, on the CPU, in eval mode: from encoder outputs to retrieval features."""
        return self._model().heads.cpu()

    @cached_property
    def person(self) -> Tensor:
        """The retrieval features of Stage 1 (N, 2, E), of the image as it is and of its mirror image."""
        with torch.inference_mode():
            return self.heads(self.encoded.features.flatten(0, 1)).unflatten(0, (-1, 2))

    def _model(self) -> nn.Module:
        """Load Stage 1, with tokens of parts as further identity tokens."""
        plain = ("INPUT.PADDING.ENABLED", "False", "INPUT.REA.ENABLED", "False")  # images as Stage 2 has them
        parts = ("MODEL.BACKBONE.PART_TOKENS", PARTS, "SOLVER.AMP.ENABLED", False)
        cfg = self.config("base_stage1", "MODEL.WEIGHTS", str(self.weights), *plain, *parts)
        cfg.freeze()
        return load_trained_model(cfg)

    def _check_encoded(self, done: Path) -> None:
        for folder in (self.training_set, self.test_set):
            for name in EncoderOutput._fields:
                path = folder / f"{name}.npy"
                try:
                    np.load(path, mmap_mode="r")
                except (OSError, ValueError, EOFError) as error:
                    again = f"remove {done}: the same command encodes all images again"
                    raise UserError(f"{path} cannot be read: {error}", again) from error

    def _encode(self) -> None:
        model = self._model()
        encode_images(model.cfg, model, self.train_set.samples, self.training_set)
        encode_images(model.cfg, model, self.samples, self.test_set)


def two_way(name: str, protocols: Sequence[RetrievalTask]) -> HeldOutProtocol:
    """Join protocols from one view to another: all images search all, as in CARGO_AG.

    Images of the query's person in its own view are left out, those of others in it are not.
    """
    samples = [replace(sample, match_id=sample.viewid) for sample in distinct_samples(protocols)]
    return HeldOutProtocol(name, tuple(protocols[0].view_names), samples, samples)
