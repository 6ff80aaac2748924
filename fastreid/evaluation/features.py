"""Rank evaluation straight from features, in blocks."""

from typing import Any

import numpy as np
import torch

from fastreid.evaluation.distance import distance_rows
from fastreid.evaluation.rank import Labels, QueryScores, check_labels, check_max_rank, rank_matrix


def evaluate_features(
    q_feats: Any,
    g_feats: Any,
    q_pids,
    g_pids,
    q_camids,
    g_camids,
    metric="cosine",
    max_rank=50,
    use_cython=True,
):
    q_feats, g_feats = torch.as_tensor(q_feats), torch.as_tensor(g_feats)
    check_max_rank(max_rank)
    labels = check_labels(len(q_feats), len(g_feats), q_pids, g_pids, q_camids, g_camids)
    return rank_features(q_feats, g_feats, labels, metric, use_cython).summarise(max_rank, len(g_feats))


def rank_features(q_feats, g_feats, labels: Labels, metric="cosine", use_cython=True) -> QueryScores:
    parts = []
    for rows, distances in distance_rows(q_feats, g_feats, metric):
        part = labels._replace(
            q_camids=labels.q_camids[rows], starts=labels.starts[rows], stops=labels.stops[rows]
        )
        parts.append(rank_matrix(distances, part, use_cython))
    return QueryScores(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
