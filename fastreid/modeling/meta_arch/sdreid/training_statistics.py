"""Means over the training set before Stage 2, of which every rank encodes a share of the images."""

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor

from fastreid.config import CfgNode
from fastreid.evaluation.extraction import split_batches
from fastreid.modeling.meta_arch.base import BuildLoader
from fastreid.modeling.meta_arch.sdreid.identity_means import IdentityMeans
from fastreid.structures import Batch, EncoderOutput, Sample
from fastreid.utils import comm

Fits = dict[str, Callable[[Tensor, Tensor], None]]  # what takes mean and standard deviation of an output


class _OfBatch(NamedTuple):
    """The part of one batch of B images, on the CPU."""

    count: int
    sums: dict[str, tuple[Tensor, Tensor]]
    """Of the values and of their squares, float64, by the encoder's output."""
    images: tuple[Tensor, Tensor, Tensor] | None
    """Features (B, D) with identities and views (B,), for `IdentityMeans`."""


def fit_statistics(
    cfg: CfgNode,
    encode: Callable[[Batch], EncoderOutput],
    samples: list[Sample],
    build_loader: BuildLoader,
    fits: Fits,
    means: IdentityMeans | None,
) -> None:
    """Set the statistics of `fits` and `means` from the training images `samples`; call it on all ranks.

    What the batches give is added up in their order, whichever rank encoded them: the result is the same to
    the last bit for every number of ranks.
    """
    every: Iterable[_OfBatch] = (
        _add_up(encode(batch), batch, fits, means) for batch in _own_batches(cfg, samples, build_loader)
    )
    if _is_shared(cfg):
        every = itertools.chain.from_iterable(comm.all_gather_object(list(every)))
    count, table = 0, None if means is None else means.sums()
    totals = dict.fromkeys(fits, (0.0, 0.0))
    for of_batch in every:
        count += of_batch.count
        for name, (values, squares) in of_batch.sums.items():
            totals[name] = totals[name][0] + values, totals[name][1] + squares
        if means is not None:
            means.add(table, *of_batch.images)
    if means is not None:
        means.fit(table)
    for name, fit in fits.items():
        mean, square = (total / count for total in totals[name])
        fit(mean, (square - mean.square()).clamp(min=0).sqrt())


def _is_shared(cfg: CfgNode) -> bool:
    """Tell whether ranks share the work: what stands in for a bad image is chosen among all images."""
    return comm.get_world_size() > 1 and cfg.DATALOADER.ON_BAD_IMAGE == "error"


def _own_batches(cfg: CfgNode, samples: list[Sample], build_loader: BuildLoader) -> Iterable[Batch]:
    start, stop = 0, len(samples)
    if _is_shared(cfg):
        shares = split_batches(len(samples), cfg.TEST.IMS_PER_BATCH, comm.get_world_size())
        start, stop = shares[comm.get_rank()]
    return build_loader(samples[start:stop]) if start < stop else ()


def _add_up(
    encoded: EncoderOutput, batch: Batch, names: Iterable[str], means: IdentityMeans | None
) -> _OfBatch:
    sums = {}
    for name in names:
        values = getattr(encoded, name).double()
        sums[name] = values.sum(0).cpu(), values.square().sum(0).cpu()
    features = encoded.features
    images = None if means is None else (features.cpu(), batch["targets"], batch["viewids"])
    return _OfBatch(len(features), sums, images)
