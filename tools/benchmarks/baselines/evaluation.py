"""Rank evaluation and re-ranking as frameworks commonly do them: sort everything, dense N x N arrays."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastreid.evaluation.rank_cylib import setup as kernel_build


def rank_by_sorting(
    kernel: ModuleType, distmat: np.ndarray, labels: tuple[np.ndarray, ...], max_rank: int = 50
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute (cmc, all_AP, all_INP) from a full argsort and compiled scoring of every sorted row.

    `labels` are q_pids, g_pids, q_camids, g_camids as int64.
    """
    num_queries = len(distmat)
    ap, inp, first = (
        np.full(num_queries, np.nan),
        np.full(num_queries, np.nan),
        np.zeros(num_queries, np.int64),
    )
    kernel.score_sorted(np.argsort(distmat, axis=1), *labels, ap, inp, first)
    valid = first > 0
    cmc = np.array([(first[valid] <= rank).mean() for rank in range(1, max_rank + 1)])
    return cmc, ap[valid], inp[valid]


def build_scoring(folder: Path) -> ModuleType:
    """Compile ``sorted_rank.pyx`` in `folder`, with the flags of the project's own kernels; import it."""
    shutil.copy(Path(__file__).with_name("sorted_rank.pyx"), folder)
    shutil.copy(kernel_build.__file__, folder / "kernel_build.py")
    (folder / "setup.py").write_text(
        "from kernel_build import BuildOptionalExtension, rank_extension\n"
        "from setuptools import setup\n"
        "setup(ext_modules=[rank_extension('sorted_rank', 'sorted_rank.pyx')], py_modules=[],\n"
        "      cmdclass={'build_ext': BuildOptionalExtension})\n"
    )
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    built = next((path for path in folder.glob("sorted_rank*") if path.suffix in (".so", ".pyd")), None)
    if built is None:
        raise RuntimeError(f"the baseline's scoring could not be compiled: {done.stderr}")
    spec = importlib.util.spec_from_file_location("sorted_rank", built)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rerank_densely(
    features: np.ndarray, num_queries: int, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """Compute (Q, G) float32 by the algorithm of Zhong et al., CVPR 2017, over dense (N, N) float32 arrays.

    `features`: (N, D) float32, queries first.
    """
    queries, gallery = features[:num_queries], features[num_queries:]
    across = _euclidean(queries, gallery)
    original = np.block([[_euclidean(queries, queries), across], [across.T, _euclidean(gallery, gallery)]])
    original = np.power(original, 2)
    original = (original / original.max(0)).T
    order = np.argsort(original, axis=1)
    encodings = np.zeros_like(original)
    for image in range(len(features)):
        members = _reciprocal(order, image, k1)
        expanded = members
        for candidate in members:
            near = _reciprocal(order, candidate, int(np.around(k1 / 2)))
            if len(np.intersect1d(near, members)) > 2 / 3 * len(near):
                expanded = np.append(expanded, near)
        expanded = np.unique(expanded)
        weights = np.exp(-original[image, expanded])
        encodings[image, expanded] = weights / weights.sum()
    encodings = np.stack([encodings[order[image, :k2]].mean(0) for image in range(len(features))])
    return _mix(original[:num_queries], encodings, lambda_value)[:, num_queries:]


def _euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0))


def _reciprocal(order: np.ndarray, image: int, k: int) -> np.ndarray:
    forward = order[image, : k + 1]
    backward = order[forward, : k + 1]
    return forward[np.where(backward == image)[0]]


def _mix(original: np.ndarray, encodings: np.ndarray, lambda_value: float) -> np.ndarray:
    holders = [np.flatnonzero(column) for column in encodings.T]
    jaccard = np.zeros_like(original)
    for query in range(len(original)):
        overlap = np.zeros(len(encodings), np.float32)
        for member in np.flatnonzero(encodings[query]):
            rows = holders[member]
            overlap[rows] += np.minimum(encodings[query, member], encodings[rows, member])
        jaccard[query] = 1 - overlap / (2 - overlap)
    return (1 - lambda_value) * jaccard + lambda_value * original


def rank_query_by_query(
    q_feats: Tensor,
    g_feats: Tensor,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
    device: torch.device,
) -> list[float]:
    """Return the average precisions of the queries with a match: the whole matrix, each row sorted."""
    q_feats, g_feats = (normalize(feats.to(device)) for feats in (q_feats, g_feats))
    distances = (1 - q_feats @ g_feats.T).cpu().numpy()
    precisions = []
    for row, pid, camid in zip(distances, q_pids, q_camids, strict=True):
        order = np.argsort(row)
        order = order[(g_pids[order] != pid) | (g_camids[order] != camid)]
        ranks = np.flatnonzero(g_pids[order] == pid) + 1
        if len(ranks):
            precisions.append(float(np.mean(np.arange(1, len(ranks) + 1) / ranks)))
    return precisions
