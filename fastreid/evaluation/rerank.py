"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) over sparse neighbourhoods.

The paper's encoding of a feature, V, has a few hundred non-zero entries among all N = Q + G images. So
neighbourhoods and encodings are sparse matrices, neighbours come from an exact search, and the only dense
result is the (Q, G) distance matrix. Distances are squared Euclidean ones divided by the largest of the
same row, as in the authors' code.
"""

from collections.abc import Iterator

import numpy as np
import torch
from scipy import sparse

from fastreid.utils.logger import warn_once

BLOCK = 512, 4096  # rows and columns of distances that are held at once: 8 MB, for the cache
PAIRS = 1 << 15  # feature pairs gathered at once


def rerank_distance(
    q_feats: torch.Tensor, g_feats: torch.Tensor, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """Compute (1 - lambda) * Jaccard + lambda * original distance (eq. 12), as a (Q, G) float32 matrix.

    Args:
        q_feats, g_feats: (Q, D) and (G, D) float32.
        k1: size of the neighbourhoods.
        k2: neighbours over which an encoding is averaged (local query expansion).

    Raises:
        ValueError: for features that are not finite, or so large that their squared distances overflow.
    """
    features = torch.cat([q_feats, g_feats]).detach().cpu()
    distances, maxima = _original_distances(features, len(q_feats))
    encodings = _encodings(features.numpy(), maxima, k1, k2)
    distances *= lambda_value / maxima[: len(q_feats), None]
    for row, jaccard in zip(distances, _jaccard_rows(encodings, len(q_feats)), strict=True):
        row += (1 - lambda_value) * jaccard
    return distances


def jaccard_distance(q_feats: torch.Tensor, g_feats: torch.Tensor, k1: int = 20, k2: int = 6) -> np.ndarray:
    """Compute (Q, G) float32 Jaccard distances of the k-reciprocal encodings; see `rerank_distance`."""
    return rerank_distance(q_feats, g_feats, k1, k2, lambda_value=0)


def _original_distances(features: torch.Tensor, num_queries: int) -> tuple[np.ndarray, np.ndarray]:
    """(Q, G) float32 squared distances, and (N,) each image's largest, no less than a tiny number."""
    num_images = len(features)
    distances = np.empty((num_queries, num_images - num_queries), np.float32)
    maxima = np.full(num_images, np.finfo(np.float32).tiny)
    squares = torch.linalg.vector_norm(features, dim=1).square_()
    # faiss has no neighbours for what is not finite. NaN is not less than anything.
    if not (squares < torch.finfo(torch.float32).max / 8).all():
        raise ValueError("re-ranking needs finite features, short enough for squared distances in float32")
    room = torch.empty(BLOCK[0] * BLOCK[1])
    for rows in _slices(0, num_images, BLOCK[0], num_queries):
        # distances are symmetric: the columns before were rows already
        for columns in _slices(rows.start, num_images, BLOCK[1], num_queries):
            a, b = features[rows], features[columns]
            block = room[: len(a) * len(b)].view(len(a), len(b))
            torch.addmm(squares[columns], a, b.T, alpha=-2, out=block)
            block = block.numpy()
            block += squares[rows, None].numpy()
            np.maximum(block, 0, out=block)
            np.maximum(maxima[rows], block.max(1), out=maxima[rows])
            np.maximum(maxima[columns], block.max(0), out=maxima[columns])
            if rows.start < num_queries <= columns.start:
                distances[rows, columns.start - num_queries : columns.stop - num_queries] = block
    return distances, maxima


def _slices(start: int, stop: int, step: int, edge: int) -> Iterator[slice]:
    """Slices of at most `step` over ``start:stop``, none of them across `edge`."""
    while start < stop:
        end = min(start + step, stop, edge if start < edge else stop)
        yield slice(start, end)
        start = end


def _encodings(features: np.ndarray, maxima: np.ndarray, k1: int, k2: int) -> sparse.csr_array:
    """V, (N, N): each image's weights of its k-reciprocal neighbours (eq. 7), averaged over k2 images."""
    num_images = len(features)
    distances, neighbours = _nearest(features, min(max(k1 + 1, k2), num_images))
    members = _expand(
        _reciprocal(neighbours[:, : k1 + 1]), _reciprocal(neighbours[:, : int(np.around(k1 / 2)) + 1])
    )
    rows = np.repeat(np.arange(num_images), np.diff(members.indptr))
    squared = _pair_distances(features, rows, members.indices, neighbours, distances)
    weights = np.exp(-squared / maxima[rows])
    weights /= np.bincount(rows, weights, num_images)[rows]
    encodings = sparse.csr_array((weights.astype(np.float32), members.indices, members.indptr), members.shape)
    if k2 > 1:
        encodings = _adjacency(neighbours[:, :k2]) @ encodings
        encodings.data /= min(k2, num_images)
    return encodings


def _nearest(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, k) float32 squared distances and int64 indices of the k nearest of every image, itself included."""
    try:
        import faiss
    except ImportError:
        warn_once(
            __name__,
            "faiss is not installed, so re-ranking goes on with PyTorch, which is slower",
            "pip install faiss-cpu",
        )
        return _nearest_in_torch(torch.from_numpy(features), k)
    index = faiss.IndexFlatL2(features.shape[1])
    index.add(features)
    return index.search(features, k)


def _nearest_in_torch(features: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The same as `_nearest`, by partial sorts of blocks of distances."""
    blocks = [
        torch.cdist(rows, features).square_().topk(k, largest=False) for rows in features.split(BLOCK[0])
    ]
    return tuple(torch.cat(parts).numpy() for parts in zip(*blocks, strict=True))


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


def _jaccard_rows(encodings: sparse.csr_array, num_queries: int) -> Iterator[np.ndarray]:
    """Per query, (G,) float64: 1 - sum(min) / sum(max) of its and the gallery's encodings (eq. 10)."""
    num_images = encodings.shape[0]
    by_column = encodings.tocsc()
    column_lengths = np.diff(by_column.indptr)
    for query in range(num_queries):
        row = slice(encodings.indptr[query], encodings.indptr[query + 1])
        columns, weights = encodings.indices[row], encodings.data[row]
        starts, lengths = by_column.indptr[columns], column_lengths[columns]
        entries = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        smaller = np.minimum(np.repeat(weights, lengths), by_column.data[entries])
        overlap = np.bincount(by_column.indices[entries], smaller, num_images)[num_queries:]
        yield 1 - overlap / (2 - overlap)


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
