"""The kernels of ``rank_cylib/rank_cy.pyx`` in NumPy: the same functions, arguments and results, slower."""

import numpy as np


class Marks:
    """The gallery items of a query's person in rank order, up to the last hit; none without a hit."""

    def __init__(self, distances: np.ndarray, indices: np.ndarray, is_hit: np.ndarray) -> None:
        order = np.lexsort((indices, distances))
        order = order[: np.flatnonzero(is_hit[order]).max(initial=-1) + 1]
        self.distances = distances[order].astype(np.float64)
        self.indices = indices[order].astype(np.int64)
        self.is_hit = is_hit[order]
        self.levels = np.unique(self.distances)

    def __len__(self) -> int:
        return len(self.distances)

    def before(self, distances: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Count the marks that come before each of the items."""
        stride = int(max(self.indices.max(), indices.max(initial=0))) + 1

        def order_key(distances: np.ndarray, indices: np.ndarray) -> np.ndarray:
            # odd levels are the marks' distances, even ones the gaps: within a level the index decides
            level = self.levels.searchsorted(distances, "left") + self.levels.searchsorted(distances, "right")
            return level * stride + indices

        return np.searchsorted(order_key(self.distances, self.indices), order_key(distances, indices))

    def count(self, before: np.ndarray) -> np.ndarray:
        """(n,) int64: how many items lie between mark k - 1 and mark k, mark k itself included."""
        return np.bincount(before, minlength=len(self) + 1)[: len(self)]

    def score(self, counts: np.ndarray) -> tuple[float, float, int]:
        """Average precision, inverse negative penalty and first hit's rank from the counts."""
        ranks = (np.cumsum(counts) - np.cumsum(~self.is_hit))[self.is_hit]
        return np.mean(np.arange(1, len(ranks) + 1) / ranks), len(ranks) / ranks[-1], ranks[0]


def rank_queries(
    distmat: np.ndarray,
    members: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
    ap: np.ndarray,
    inp: np.ndarray,
    first: np.ndarray,
    ok: np.ndarray,
    num_threads: int,
) -> None:
    """Score every query of a distance matrix; see the kernel of this name. One thread, whatever is asked."""
    for i, row in enumerate(distmat):
        ok[i] = not np.isnan(row).any()
        own = members[starts[i] : stops[i]]
        marks = Marks(row[own], own, g_camids[own] != q_camids[i])
        if ok[i] and len(marks):
            near = np.flatnonzero(row <= marks.distances[-1])
            ap[i], inp[i], first[i] = marks.score(marks.count(marks.before(row[near], near)))


class BlockRanker:
    """Ranks a block of queries against a gallery whose distances come in blocks; see the kernel's class."""

    def __init__(
        self,
        q: np.ndarray,
        g: np.ndarray,
        scale: np.ndarray,
        bias: np.ndarray,
        tolerance: np.ndarray,
        grid: np.ndarray,
        members: np.ndarray,
        starts: np.ndarray,
        stops: np.ndarray,
        q_camids: np.ndarray,
        g_camids: np.ndarray,
        num_threads: int,
    ) -> None:
        self.q, self.g, self.scale, self.bias = q, g, scale, bias
        self.tolerance, self.grid = tolerance, grid
        self.marks = []
        for i, camid in enumerate(q_camids):
            own = members[starts[i] : stops[i]]
            self.marks.append(Marks(self._distances(i, own), own, g_camids[own] != camid))
        self.counts = [np.zeros(len(marks), np.int64) for marks in self.marks]

    def _distances(self, query: int, indices: np.ndarray) -> np.ndarray:
        products = self.g[indices].astype(np.float64) * self.q[query].astype(np.float64)
        distances = self.scale[indices] * np.einsum("nd->n", products) + self.bias[indices]
        return np.rint(distances / self.grid[query]) * self.grid[query]

    def count(self, block: np.ndarray, offset: int) -> None:
        """Count the (Q, n) float32 distances to the gallery items from `offset` on."""
        for i, (row, marks) in enumerate(zip(block, self.marks, strict=True)):
            if len(marks):
                limit = np.nextafter(np.float32(marks.distances[-1] + self.tolerance[i]), np.float32(np.inf))
                near = np.flatnonzero(~(row > limit))
                before = self._before(i, row[near].astype(np.float64), near + offset)
                self.counts[i] += marks.count(before)

    def _before(self, query: int, distances: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Count the marks before each item; computed again in float64 where the block leaves it open."""
        marks, tolerance = self.marks[query], self.tolerance[query]
        before = marks.distances.searchsorted(distances - tolerance)
        following = np.append(marks.distances, np.inf)[before]
        unclear = np.flatnonzero(~(following > distances + tolerance))
        exact = self._distances(query, indices[unclear])
        before[unclear] = marks.before(exact, indices[unclear])
        return before

    def score(self, ap: np.ndarray, inp: np.ndarray, first: np.ndarray) -> None:
        """Fill in the scores of the queries that have a hit, when the whole gallery was counted."""
        for i, (marks, counts) in enumerate(zip(self.marks, self.counts, strict=True)):
            if len(marks):
                ap[i], inp[i], first[i] = marks.score(counts)
