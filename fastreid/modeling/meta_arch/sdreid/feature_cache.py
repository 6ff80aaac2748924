"""Batches of encoded images: the encoder of Stage 2 is frozen, so once for each image is enough."""

import logging
import shutil
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastreid.config import CfgNode
from fastreid.data import TrainSet, build_train_loader
from fastreid.data.image_set import ImageSet
from fastreid.data.loaders import ReIDLoader, loader_options
from fastreid.data.transforms import mirror_decisions, resize
from fastreid.evaluation.extraction import SMALLER_BATCHES, split_batches
from fastreid.modeling.meta_arch.base import MakeLoader
from fastreid.structures import Batch, EncoderOutput, Sample
from fastreid.utils import comm
from fastreid.utils.env import amp_dtype, autocast
from fastreid.utils.errors import UserError
from fastreid.utils.memory import memory_shortage_named, pinning_shortage_named

logger = logging.getLogger(__name__)

FOLDER = "encoded_training_set"
AHEAD = 2  # batches that are read while one trains


@contextmanager
def cached_batches(cfg: CfgNode, model: nn.Module, train_set: TrainSet) -> Iterator[MakeLoader]:
    """Encode the training set into memory-mapped files under OUTPUT_DIR, for the duration of the block.

    Every rank encodes a share of the images, so OUTPUT_DIR must be one folder for all of them.

    Yields:
        What makes encoded batches: called with the first iteration it gives those of
        :func:`fastreid.data.build_train_loader`.

    Raises:
        UserError: if the disk is too small, or an image cannot be read.
    """
    folder = Path(cfg.OUTPUT_DIR) / FOLDER
    try:
        encode_images(cfg, model, train_set.samples, folder)
        yield partial(EncodedLoader, cfg, train_set, folder)
    finally:
        remove_cached_features(cfg)


def remove_cached_features(cfg: CfgNode) -> None:
    """Remove the encoded images from OUTPUT_DIR, once for all ranks; a killed run leaves them there."""
    if comm.is_main_process():  # a rank that still maps the files keeps their contents
        shutil.rmtree(Path(cfg.OUTPUT_DIR) / FOLDER, ignore_errors=True)


@torch.inference_mode()
def encode_images(cfg: CfgNode, model: nn.Module, samples: list[Sample], folder: Path) -> None:
    """Write the encoder's outputs for every image, first as it is and then mirrored, as float32.

    They are computed in the precision of training (``SOLVER.AMP``).
    """
    _create_files(cfg, model, len(samples), folder)
    files = _open(folder, "r+")
    shares = split_batches(len(samples), cfg.TEST.IMS_PER_BATCH, comm.get_world_size())
    row, stop = shares[comm.get_rank()]
    amp = amp_dtype(cfg.SOLVER.AMP, model.device)
    progress = tqdm(total=stop - row, unit="img", desc="encode once", disable=not sys.stderr.isatty())
    within = memory_shortage_named(f"encoding {cfg.TEST.IMS_PER_BATCH} images", SMALLER_BATCHES)
    with progress, within, autocast(amp, model.device):
        for batch in _plain_loader(cfg, samples[row:stop]):
            images = batch["images"].to(model.device, non_blocking=True)
            for mirrored, pixels in enumerate((images, images.flip(3))):
                encoded = model.encode({"images": pixels})
                for name, file in files.items():
                    file[row : row + len(images), mirrored] = getattr(encoded, name).float().cpu().numpy()
            row += len(images)
            progress.update(len(images))
    for file in files.values():
        file.flush()
    comm.synchronize()


class EncodedLoader:
    """Endless batches as :func:`fastreid.data.build_train_loader` gives them, with encoded images.

    In place of ``images`` a batch has ``features``, ``view_token`` (B, D) and ``id_tokens`` (B, L-1, D),
    float32, of the images that the training set would have given: mirrored where it would have been. They
    are read ahead in a thread and, for CUDA, into pinned memory, which is copied without waiting.
    """

    def __init__(self, cfg: CfgNode, train_set: TrainSet, folder: Path, start_iter: int) -> None:
        self._draws = build_train_loader(cfg, train_set, start_iter).batch_sampler
        self._cfg = cfg
        self._pin = loader_options(cfg)["pin_memory"]
        # Copy on write: torch takes no memory that is read-only, and nobody writes.
        files = _open(folder, "c")
        self._rows = {name: torch.from_numpy(file).flatten(0, 1) for name, file in files.items()}
        samples = train_set.samples
        self._labels = {
            "targets": torch.tensor([sample.pid for sample in samples]),
            "camids": torch.tensor([sample.camid for sample in samples]),
            "viewids": torch.tensor([sample.viewid for sample in samples]),
        }
        self._paths = [sample.path for sample in samples]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        settings = {}
        if self._pin:  # pinned memory belongs to the thread's device
            settings = {"initializer": torch.cuda.set_device, "initargs": (torch.cuda.current_device(),)}
        pool, batches = ThreadPoolExecutor(1, **settings), self._batches()
        try:
            waiting: deque[Future] = deque(pool.submit(next, batches) for _ in range(AHEAD))
            while True:
                waiting.append(pool.submit(next, batches))
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _batches(self) -> Iterator[dict[str, Any]]:
        for draws in self._draws:
            mirrored = mirror_decisions(self._cfg, [draw.number for draw in draws])
            yield self.take([draw.index for draw in draws], mirrored.tolist())

    def take(self, rows: list[int], mirrored: list[int]) -> dict[str, Any]:
        """Return a batch of these images of the training set; `mirrored`: 1 for each that is, else 0."""
        images = torch.tensor(rows)
        places = 2 * images + torch.tensor(mirrored, dtype=images.dtype)
        encoded = {name: self._selected(values, places) for name, values in self._rows.items()}
        labels = {name: self._selected(values, images) for name, values in self._labels.items()}
        return labels | {"img_paths": [self._paths[row] for row in rows]} | encoded

    def _selected(self, values: Tensor, places: Tensor) -> Tensor:
        with pinning_shortage_named():
            out = torch.empty(len(places), *values.shape[1:], dtype=values.dtype, pin_memory=self._pin)
        return torch.index_select(values, 0, places, out=out)


def _plain_loader(cfg: CfgNode, samples: list[Sample]) -> Iterable[Batch]:
    """The images of training (``INPUT.SIZE_TRAIN``) in order, without augmentation."""
    size = tuple(cfg.INPUT.SIZE_TRAIN)
    images = ImageSet(samples, resize(size), size)
    return ReIDLoader(images, batch_size=cfg.TEST.IMS_PER_BATCH, **loader_options(cfg))


def _create_files(cfg: CfgNode, model: nn.Module, images: int, folder: Path) -> None:
    dim = model.backbone.feat_dim
    shapes = dict.fromkeys(EncoderOutput._fields, (images, 2, dim))
    shapes["id_tokens"] = (images, 2, model.backbone.num_id_tokens, dim)
    if comm.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
    comm.synchronize()
    needed, free = sum(4 * int(np.prod(shape)) for shape in shapes.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"MODEL.SDMODEL.CACHE_FEATURES needs {needed / 2**30:.1f} GB for {images} encoded images, but"
            f" {free / 2**30:.1f} GB are free in OUTPUT_DIR {cfg.OUTPUT_DIR}",
            "free some, or switch it off",
        )
    logger.info("Encoding %d images and their mirror images once: %.1f GB", images, needed / 2**30)
    if comm.is_main_process():
        for name, shape in shapes.items():
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape)
    comm.synchronize()


def _open(folder: Path, mode: str) -> dict[str, np.memmap]:
    return {name: np.load(folder / f"{name}.npy", mmap_mode=mode) for name in EncoderOutput._fields}
