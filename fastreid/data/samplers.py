"""Endless samplers of training batches.

Every rank draws the same global batches of ``SOLVER.IMS_PER_BATCH`` images and keeps its part of each, whole
identities. So a batch does not depend on the number of ranks, and its k-th is the same for every start.
"""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from fastreid.structures import Sample
from fastreid.utils.errors import UserError
from fastreid.utils.logger import warn_once
from fastreid.utils.registry import Registry, requiring

SAMPLER_REGISTRY = Registry(
    "sampler",
    "DATALOADER.SAMPLER_TRAIN",
    requiring("by_identity", "check_batch_size", "fitted_batch_size", see="fastreid/data/samplers.py"),
)


class Draw(NamedTuple):
    """One drawn image: its index in the training set, and how many were drawn before it in the run."""

    index: int
    number: int


class BatchSampler(Sampler[list[Draw]]):
    """This rank's part of each global batch, from global batch `start_iter` on, without end.

    A subclass says with `_global_batches` what the global batches are, and with `by_identity` whether they
    hold whole identities, `num_instance` images of each.

    Args:
        samples: the training images; pids are 0 … N-1.
        batch_size: images of a global batch.
        num_instance: images of one identity in a batch.
        seed: fixes the batches.
        start_iter: number of the first batch that is given.
        rank, world_size: which part of each batch this process gets.

    Raises:
        UserError: if the batch cannot be divided over the ranks, or the images do not fill it.
    """

    by_identity = False

    def __init__(
        self,
        samples: Sequence[Sample],
        batch_size: int,
        num_instance: int,
        seed: int,
        start_iter: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.check_batch_size(batch_size, num_instance, world_size)
        self.samples = samples
        self.batch_size = batch_size
        self.num_instance = num_instance
        self.seed = seed
        self.start_iter = start_iter
        self.rank = rank
        self.world_size = world_size
        self._prepare()

    @classmethod
    def check_batch_size(cls, batch_size: int, num_instance: int, world_size: int) -> None:
        """Raise a `UserError` if the ranks cannot share a batch, whole identities where it is of them."""
        step = world_size * (num_instance if cls.by_identity else 1)
        if step < 1 or batch_size < 1 or batch_size % step:
            identities = f"identities of DATALOADER.NUM_INSTANCE {num_instance} "
            raise UserError(
                f"SOLVER.IMS_PER_BATCH is {batch_size}, which {world_size} process(es) cannot share in"
                f" {identities if cls.by_identity else ''}images",
                f"use a multiple of {max(1, step)}",
            )

    @classmethod
    def fitted_batch_size(
        cls, samples: Sequence[Sample], batch_size: int, num_instance: int, world_size: int
    ) -> int:
        """Return `batch_size`, or of whole identities the most that `samples` fill."""
        return batch_size

    def _prepare(self) -> None:
        """Check and count, in a subclass, before the first batch."""

    def __iter__(self) -> Iterator[list[Draw]]:
        part = self.batch_size // self.world_size
        first = self.rank * part
        batches = self._global_batches(self.start_iter)
        for iteration, batch in enumerate(batches, start=self.start_iter):
            number = iteration * self.batch_size + first
            yield [Draw(index, number + i) for i, index in enumerate(batch[first : first + part].tolist())]

    def _global_batches(self, start: int) -> Iterator[np.ndarray]:
        """Int64 (batch_size,) arrays of sample indices from batch number `start` on, without end."""
        raise NotImplementedError

    def _rng(self, pass_number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, pass_number])


@SAMPLER_REGISTRY.register()
class TrainingSampler(BatchSampler):
    """Uniform: one random order of all images after the other. `num_instance` plays no part."""

    def _global_batches(self, start: int) -> Iterator[np.ndarray]:
        return islice(self._all_batches(), start, None)

    def _all_batches(self) -> Iterator[np.ndarray]:
        waiting = np.empty(0, dtype=np.int64)
        for pass_number in count():
            waiting = np.concatenate([waiting, self._rng(pass_number).permutation(len(self.samples))])
            whole = len(waiting) // self.batch_size * self.batch_size
            yield from waiting[:whole].reshape(-1, self.batch_size)
            waiting = waiting[whole:]


class IdentitySampler(BatchSampler):
    """Batches of P different identities with K = `num_instance` images each.

    An identity with fewer than K images gives each of them more than once, in turn.
    """

    by_identity = True

    @classmethod
    def fitted_batch_size(
        cls, samples: Sequence[Sample], batch_size: int, num_instance: int, world_size: int
    ) -> int:
        step = num_instance * world_size
        most = len({sample.pid for sample in samples}) // world_size * step
        return min(batch_size, most or step)

    def _prepare(self) -> None:
        batch_size, num_instance = self.batch_size, self.num_instance
        self.pids = np.array([sample.pid for sample in self.samples], dtype=np.int64)
        self.sizes = np.bincount(self.pids)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.ids_per_batch = batch_size // num_instance
        if len(self.sizes) < self.ids_per_batch:
            raise UserError(
                f"a batch needs {self.ids_per_batch} identities (SOLVER.IMS_PER_BATCH {batch_size} /"
                f" DATALOADER.NUM_INSTANCE {num_instance}), but the training set has {len(self.sizes)}",
                f"set SOLVER.IMS_PER_BATCH to {len(self.sizes) * num_instance} or less"
                if len(self.sizes) >= self.world_size
                else f"use {len(self.sizes)} processes or fewer",
            )

        few = self.sizes[self.sizes < num_instance]
        if len(few) and self.rank == 0:
            warn_once(
                __name__,
                f"{len(few)} of {len(self.sizes)} identities have fewer than {num_instance} images"
                f" (DATALOADER.NUM_INSTANCE), the fewest {few.min()}: theirs come more than once in a batch",
            )

    def _shuffled_by_identity(self, rng: np.random.Generator) -> np.ndarray:
        """Sample indices in random order, those of identity i at ``starts[i] … starts[i] + sizes[i] - 1``."""
        return np.lexsort((rng.random(len(self.pids)), self.pids))


@SAMPLER_REGISTRY.register()
class NaiveIdentitySampler(IdentitySampler):
    """Every image about once in a pass: each identity's images are dealt out K at a time.

    A batch takes P random identities of those that have K images left (all have at first); the pass ends when
    fewer than P have.
    """

    def _global_batches(self, start: int) -> Iterator[np.ndarray]:
        return islice(self._all_batches(), start, None)  # about 0.1 ms for each batch that is skipped

    def _all_batches(self) -> Iterator[np.ndarray]:
        steps = np.arange(self.num_instance)
        for pass_number in count():
            rng = self._rng(pass_number)
            order = self._shuffled_by_identity(rng)
            dealt = np.zeros_like(self.sizes)
            hands = np.maximum(self.sizes // self.num_instance, 1)
            available = np.arange(len(self.sizes))
            while len(available) >= self.ids_per_batch:
                chosen = rng.choice(available, self.ids_per_batch, replace=False)
                offsets = (dealt[chosen, None] * self.num_instance + steps) % self.sizes[chosen, None]
                yield order[self.starts[chosen, None] + offsets].ravel()
                dealt[chosen] += 1
                available = available[dealt[available] < hands[available]]


class _SpreadIdentitySampler(IdentitySampler):
    """Every identity once in a pass, its K images spread over its groups (cameras, or views) evenly.

    Groups give one image each in turn, in random order, until K images are drawn; a group with few images
    gives all it has, and the others fill up. The fewer than P identities left at the end sit the pass out.
    """

    def _group_of(self, sample: Sample) -> int:
        raise NotImplementedError

    def _global_batches(self, start: int) -> Iterator[np.ndarray]:
        groups = np.array([self._group_of(sample) for sample in self.samples], dtype=np.int64)
        steps = np.arange(self.num_instance)
        batches_per_pass = len(self.sizes) // self.ids_per_batch
        for iteration in count(start):
            pass_number, batch = divmod(iteration, batches_per_pass)
            if batch == 0 or iteration == start:
                rng = self._rng(pass_number)
                order = self._groups_in_turn(self._shuffled_by_identity(rng), groups, rng)
                ids = rng.permutation(len(self.sizes))
            chosen = ids[batch * self.ids_per_batch : (batch + 1) * self.ids_per_batch, None]
            yield order[self.starts[chosen] + steps % self.sizes[chosen]].ravel()

    def _groups_in_turn(self, order: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Reorder each identity's part of `order` so that its groups alternate."""
        pids = self.pids[order]
        cells = pids * (groups.max() + 1) + groups[order]  # one cell per identity and group
        by_cell = np.argsort(cells, kind="stable")
        _, cell_starts, cell_of = np.unique(cells[by_cell], return_index=True, return_inverse=True)
        turn = np.empty(len(order), dtype=np.int64)
        turn[by_cell] = np.arange(len(order)) - cell_starts[cell_of]
        return order[np.lexsort((rng.random(len(order)), turn, pids))]


@SAMPLER_REGISTRY.register()
class BalancedIdentitySampler(_SpreadIdentitySampler):
    """P x K batches in which an identity's K images come from as many of its cameras as possible."""

    def _group_of(self, sample: Sample) -> int:
        return sample.camid


@SAMPLER_REGISTRY.register()
class AGSampler(_SpreadIdentitySampler):
    """P x K batches in which an identity's K images hold as many of each view as the identity allows."""

    def _group_of(self, sample: Sample) -> int:
        return sample.viewid
