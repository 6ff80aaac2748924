"""From images to features: every image is encoded once, and the ranks share the work."""

import itertools
import logging
import sys
import time
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from fastreid.config import CfgNode
from fastreid.data import build_test_loader
from fastreid.structures import Batch, Sample
from fastreid.utils import comm
from fastreid.utils.env import amp_dtype, autocast, exact_float32, resolve_device
from fastreid.utils.memory import memory_shortage_named

logger = logging.getLogger(__name__)

SMALLER_BATCHES = "lower TEST.IMS_PER_BATCH"  # where the GPU's memory is too small


def extract_features(
    model: nn.Module, loader: Iterable[Batch], flip: bool = False, amp: torch.dtype | None = None
) -> torch.Tensor:
    """Encode the images of `loader` in its order.

    Args:
        model: in eval mode maps a batch to (B, D) features; its mode is restored afterwards.
        loader: yields batches. Its ``dataset`` has a length.
        flip: average the features of each image and its mirror image. They are not normalised here, so
            that normalising happens once, in the metric.
        amp: encode under autocast in this dtype; None computes in float32.

    Returns:
        (N, D) float32 on the CPU; (0, 0) for an empty loader.
    """
    was_training = model.training
    model.eval()
    features, done, start = torch.empty(0, 0), 0, time.perf_counter()
    total = len(loader.dataset)
    try:
        with tqdm(total=total, unit="img", desc="encode", disable=not sys.stderr.isatty()) as progress:
            for batch in loader:
                with memory_shortage_named(f"encoding {len(batch['images'])} images", SMALLER_BATCHES):
                    encoded = _encode(model, batch, flip, amp)
                if not done:
                    features = torch.empty(total, encoded.shape[1])
                features[done : done + len(encoded)] = encoded
                done += len(encoded)
                progress.update(len(encoded))
    finally:
        model.train(was_training)
    if done != total:
        raise ValueError(f"the loader gave {done} images of the {total} in its dataset")
    seconds = time.perf_counter() - start
    logger.info("Encoded %d images in %.1f s (%.0f images/s)", done, seconds, done / max(seconds, 1e-9))
    return features


@torch.inference_mode()
def _encode(model: nn.Module, batch: Batch, flip: bool, amp: torch.dtype | None) -> torch.Tensor:
    images = batch["images"]
    images = images.to(next(model.parameters(), images).device, non_blocking=True)  # to mirror them there
    with exact_float32(), autocast(amp, images.device):
        features = model({**batch, "images": images}).float()
        if flip:
            mirrored = model({**batch, "images": images.flip(3)}).float()
            features = (features + mirrored) / 2
    return features


def extract_over_ranks(cfg: CfgNode, model: nn.Module, samples: list[Sample]) -> torch.Tensor | None:
    """Encode `samples`, each by one rank. Returns (N, D) float32 on rank 0 and None on the others.

    A rank takes a contiguous run of whole batches: the batches, and so the features to the last bit, are
    the same for every number of ranks.
    """
    shares = split_batches(len(samples), cfg.TEST.IMS_PER_BATCH, comm.get_world_size())
    own = samples[slice(*shares[comm.get_rank()])]
    features = torch.empty(0, 0)
    if own:
        amp = amp_dtype(cfg.TEST.AMP, resolve_device(cfg.MODEL.DEVICE))
        features = extract_features(model, build_test_loader(cfg, own), cfg.TEST.FLIP.ENABLED, amp)
    return _gather_on_main(features, shares)


def split_batches(num_samples: int, batch_size: int, num_ranks: int) -> list[tuple[int, int]]:
    """``(start, stop)`` of each rank's share: consecutive, whole batches, as even as they allow."""
    num_batches = -(-num_samples // batch_size)
    edges = [min(num_batches * rank // num_ranks * batch_size, num_samples) for rank in range(num_ranks + 1)]
    return list(itertools.pairwise(edges))


def _gather_on_main(features: torch.Tensor, shares: list[tuple[int, int]]) -> torch.Tensor | None:
    """The ranks' rows joined on rank 0, received straight into their place there."""
    if comm.get_world_size() == 1:
        return features
    width = max(comm.all_gather_object(features.shape[1]))
    staging = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else None
    rank = comm.get_rank()
    if rank:
        if len(features):
            dist.send(features.to(staging), dst=0)
        return None
    gathered = torch.empty(shares[-1][1], width)
    if len(features):  # an empty share has no width
        gathered[slice(*shares[0])] = features
    for source, (start, stop) in enumerate(shares):
        if source and stop > start:
            received = torch.empty(stop - start, width, device=staging)
            dist.recv(received, src=source)
            gathered[start:stop] = received
    return gathered
