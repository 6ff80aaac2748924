"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) over sparse neighbourhoods.

The paper's encoding of a feature, V, has a few hundred non-zero entries among all N = Q + G images. So
neighbourhoods and encodings are sparse matrices, neighbours come from an exact search, and the only dense
result is the (Q, G) distance matrix. Distances are squared Euclidean ones divided by the largest of the
same row, as in the authors' code.
"""

from collections.abc import Iterator
from functools import cached_property
from types import ModuleType

import numpy as np
import torch
from scipy import sparse

from fastreid.utils.errors import UserError

BLOCK = 512, 4096  # rows and columns of distances that are held at once: 8 MB, for the cache
PAIRS = 1 << 15  # feature pairs gathered at once


def jaccard_distance(q_feats: torch.Tensor, g_feats: torch.Tensor, k1: int = 20, k2: int = 6) -> np.ndarray:
    """(Q, D) x (G, D) float32 -> (Q, G) float32 Jaccard distance of the k-reciprocal encodings.

    Args:
        k1: size of the neighbourhoods; k2: neighbours over which an encoding is averaged.

    Raises:
        UserError: when faiss is not installed.
    """
    images = _Images(q_feats, g_feats)
    return _jaccard_rows(_encodings(images, k1, k2), len(q_feats))


def rerank_distance(
    q_feats: torch.Tensor, g_feats: torch.Tensor, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """As `jaccard_distance`, mixed with the original distance: (1 - lambda) * Jaccard + lambda * original."""
    images = _Images(q_feats, g_feats)
    distances = _jaccard_rows(_encodings(images, k1, k2), len(q_feats))
    distances *= 1 - lambda_value
    for rows, columns, original in images.distance_blocks(range(len(q_feats)), len(q_feats)):
        original *= lambda_value / images.maxima[rows, None]
        distances[rows, columns.start - len(q_feats) : columns.stop - len(q_feats)] += original
    return distances


class _Images:
    """Queries and gallery as one list of N features, and blocks of their distances."""

    def __init__(self, q_feats: torch.Tensor, g_feats: torch.Tensor) -> None:
        self.features = torch.cat([q_feats, g_feats]).detach().cpu()
        self.squares = torch.linalg.vector_norm(self.features, dim=1).square_()

    def __len__(self) -> int:
        return len(self.features)

    def distance_blocks(
        self, rows: range, left: int | None = None
    ) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """``(rows, columns, squared distances)`` in float32, no less than 0, of the columns from `left` on.

        Without `left`, from the block's first row on. The next block is written over the one before.
        """
        height, width = BLOCK
        room, squares = torch.empty(height * width), self.squares.numpy()
        for top in range(rows.start, rows.stop, height):
            block_rows = slice(top, min(top + height, rows.stop))
            for start in range(top if left is None else left, len(self), width):
                columns = slice(start, min(start + width, len(self)))
                a, b = self.features[block_rows], self.features[columns]
                block = room[: len(a) * len(b)].view(len(a), len(b))
                torch.addmm(self.squares[columns], a, b.T, alpha=-2, out=block)
                distances = block.numpy()
                distances += squares[block_rows, None]
                yield block_rows, columns, np.maximum(distances, 0, out=distances)

    @cached_property
    def maxima(self) -> np.ndarray:
        """(N,) float32: each image's squared distance to the farthest; no less than a tiny number."""
        maxima = np.full(len(self), np.finfo(np.float32).tiny)
        # distances are symmetric: columns before the block's rows were rows already
        for rows, columns, distances in self.distance_blocks(range(len(self))):
            np.maximum(maxima[rows], distances.max(1), out=maxima[rows])
            np.maximum(maxima[columns], distances.max(0), out=maxima[columns])
        return maxima


def import_faiss() -> ModuleType:
    """faiss, or a UserError that says how to get it."""
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "re-ranking and the Jaccard metric need faiss, which is not installed: pip install faiss-cpu,"
            " or set TEST.RERANK.ENABLED False and TEST.METRIC to cosine or euclidean"
        ) from error
    return faiss


def _encodings(images: _Images, k1: int, k2: int) -> sparse.csr_array:
    """V, (N, N): each image's weights of its k-reciprocal neighbours, averaged over k2 images."""
    num_images, features = len(images), images.features.numpy()
    distances, neighbours = _nearest(features, min(max(k1 + 1, k2), num_images))
    members = _expand(
        _reciprocal(neighbours[:, : k1 + 1]), _reciprocal(neighbours[:, : int(np.around(k1 / 2)) + 1])
    )
    rows = np.repeat(np.arange(num_images), np.diff(members.indptr))
    squared = _pair_distances(features, rows, members.indices, neighbours, distances)
    weights = np.exp(-squared / images.maxima[rows])
    weights /= np.bincount(rows, weights, num_images)[rows]
    encodings = sparse.csr_array((weights.astype(np.float32), members.indices, members.indptr), members.shape)
    if k2 > 1:
        encodings = _adjacency(neighbours[:, :k2]) @ encodings
        encodings.data /= min(k2, num_images)
    return encodings


def _nearest(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, k) float32 squared distances and int64 indices of the k nearest of every image, itself included."""
    faiss = import_faiss()
    index = faiss.IndexFlatL2(features.shape[1])
    index.add(features)
    return index.search(features, k)


def _adjacency(neighbours: np.ndarray) -> sparse.csr_array:
    """(N, k) indices as an (N, N) matrix of ones."""
    num_images, k = neighbours.shape
    indptr = np.arange(0, num_images * k + 1, k)
    ones = np.ones(neighbours.size, np.float32)
    return sparse.csr_array((ones, neighbours.ravel(), indptr), (num_images, num_images))


def _reciprocal(neighbours: np.ndarray) -> sparse.csr_array:
    """R (eq. 2): ones where either image is among the other's neighbours."""
    adjacency = _adjacency(neighbours)
    return adjacency.multiply(adjacency.T).tocsr()


def _expand(reciprocal: sparse.csr_array, half: sparse.csr_array) -> sparse.csr_array:
    """R* (eq. 3): R joined with the half-size R of each member that shares more than 2/3 of it with R."""
    shared = reciprocal.multiply(reciprocal @ half.T).tocsr()
    sizes = np.diff(half.indptr)
    shared.data = (3 * shared.data > 2 * sizes[shared.indices]).astype(np.float32)
    shared.eliminate_zeros()
    expanded = (reciprocal + shared @ half).tocsr()
    expanded.sum_duplicates()
    return expanded


def _jaccard_rows(encodings: sparse.csr_array, num_queries: int) -> np.ndarray:
    """(Q, G) float32: 1 - sum(min) / sum(max) of each query's and gallery image's encodings (eq. 10)."""
    num_images = encodings.shape[0]
    by_column = encodings.tocsc()
    distances = np.empty((num_queries, num_images - num_queries), np.float32)
    for query in range(num_queries):
        row = slice(encodings.indptr[query], encodings.indptr[query + 1])
        columns, weights = encodings.indices[row], encodings.data[row]
        starts, lengths = by_column.indptr[columns], np.diff(by_column.indptr)[columns]
        entries = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        smaller = np.minimum(np.repeat(weights, lengths), by_column.data[entries])
        overlap = np.bincount(by_column.indices[entries], smaller, num_images)[num_queries:]
        distances[query] = 1 - overlap / (2 - overlap)
    return distances


def _pair_distances(
    features: np.ndarray, rows: np.ndarray, columns: np.ndarray, neighbours: np.ndarray, distances: np.ndarray
) -> np.ndarray:
    """(P,) float32 squared distances of the pairs ``(rows[i], columns[i])``, most of them known already."""
    num_images = len(features)
    known = (np.arange(num_images)[:, None] * num_images + neighbours).ravel()
    order = np.argsort(known)
    pairs = rows * num_images + columns
    nearest = order[np.minimum(np.searchsorted(known, pairs, sorter=order), len(known) - 1)]
    squared = np.maximum(distances.ravel()[nearest], 0)
    missing = np.flatnonzero(known[nearest] != pairs)
    for start in range(0, len(missing), PAIRS):
        part = missing[start : start + PAIRS]
        difference = features[rows[part]] - features[columns[part]]
        squared[part] = np.einsum("nd,nd->n", difference, difference)
    return squared
