"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) over sparse neighbourhoods.

The paper's encoding of a feature, V, has a few hundred non-zero entries among all N = Q + G images. So
neighbourhoods and encodings are sparse matrices, neighbours come from an exact search, and the only dense
result is the (Q, G) distance matrix. Distances are squared Euclidean ones divided by the largest of the
same row, as in the authors' code.
"""

from types import ModuleType

import numpy as np
import torch
from scipy import sparse

from fastreid.utils.errors import UserError

BLOCK = 1024  # rows whose distances to all others are held at once
PAIRS = 1 << 15  # feature pairs gathered at once


def jaccard_distance(q_feats: torch.Tensor, g_feats: torch.Tensor, k1: int = 20, k2: int = 6) -> np.ndarray:
    """(Q, D) x (G, D) float32 -> (Q, G) float32 Jaccard distance of the k-reciprocal encodings.

    Args:
        k1: size of the neighbourhoods; k2: neighbours over which an encoding is averaged.

    Raises:
        UserError: when faiss is not installed.
    """
    features = _joined(q_feats, g_feats)
    return _jaccard_rows(_encodings(features, k1, k2, _row_maxima(features)), len(q_feats))


def rerank_distance(
    q_feats: torch.Tensor, g_feats: torch.Tensor, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """As `jaccard_distance`, mixed with the original distance: (1 - lambda) * Jaccard + lambda * original."""
    features = _joined(q_feats, g_feats)
    maxima = _row_maxima(features)
    distances = _jaccard_rows(_encodings(features, k1, k2, maxima), len(q_feats))
    distances *= 1 - lambda_value
    queries, gallery = features[: len(q_feats)], features[len(q_feats) :]
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, min(start + BLOCK, len(queries)))
        original = _squared_distances(queries[rows], gallery)
        original *= lambda_value / maxima[rows, None]
        distances[rows] += original
    return distances


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


def _joined(q_feats: torch.Tensor, g_feats: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(torch.cat([q_feats, g_feats]).cpu().numpy(), np.float32)


def _encodings(features: np.ndarray, k1: int, k2: int, maxima: np.ndarray) -> sparse.csr_array:
    """V, (N, N): each image's weights of its k-reciprocal neighbours, averaged over k2 images."""
    num_images = len(features)
    neighbours = _nearest(features, min(max(k1 + 1, k2), num_images))
    members = _expand(
        _reciprocal(neighbours[:, : k1 + 1]), _reciprocal(neighbours[:, : int(np.around(k1 / 2)) + 1])
    )
    rows = np.repeat(np.arange(num_images), np.diff(members.indptr))
    weights = np.exp(-_pair_distances(features, rows, members.indices) / maxima[rows])
    weights /= np.bincount(rows, weights, num_images)[rows]
    encodings = sparse.csr_array((weights.astype(np.float32), members.indices, members.indptr), members.shape)
    if k2 > 1:
        encodings = _adjacency(neighbours[:, :k2]) @ encodings
        encodings.data /= min(k2, num_images)
    return encodings


def _nearest(features: np.ndarray, k: int) -> np.ndarray:
    """(N, k) int64: the k nearest of every image, itself included, nearest first."""
    faiss = import_faiss()
    index = faiss.IndexFlatL2(features.shape[1])
    index.add(features)
    return index.search(features, k)[1]


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


def _pair_distances(features: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(P,) float32 squared distances of the pairs ``(rows[i], columns[i])``."""
    distances = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), PAIRS):
        pairs = slice(start, start + PAIRS)
        difference = features[rows[pairs]] - features[columns[pairs]]
        np.einsum("nd,nd->n", difference, difference, out=distances[pairs])
    return distances


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, D) x (B, D) -> (A, B) float32 squared distances, no less than 0."""
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    squared = torch.addmm(b.square().sum(1), a, b.T, alpha=-2)
    squared += a.square().sum(1, keepdim=True)
    return squared.clamp_(min=0).numpy()


def _row_maxima(features: np.ndarray) -> np.ndarray:
    """(N,) float32: the squared distance of each image to the farthest; no less than a tiny number."""
    rows = (features[start : start + BLOCK] for start in range(0, len(features), BLOCK))
    maxima = np.concatenate([_squared_distances(block, features).max(1) for block in rows])
    return np.maximum(maxima, np.finfo(np.float32).tiny)
