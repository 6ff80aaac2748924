"""Average query expansion with similarity weights (alpha-QE: Radenovic et al., TPAMI 2019, section 3.3)."""

import torch

from fastreid.evaluation.distance import normalise

BLOCK = 1024  # rows whose similarities to all features are held at once


def expand_queries(
    q_feats: torch.Tensor, g_feats: torch.Tensor, times: int = 1, k: int = 5, alpha: float = 3.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace every feature, query and gallery alike, by the weighted mean of its `k` nearest.

    A neighbour's weight is its cosine similarity (no less than 0) to the power `alpha`; the nearest of a
    feature is as a rule the feature itself. Repeated `times` times.

    Args:
        q_feats, g_feats: (Q, D) and (G, D) float32.

    Returns:
        (Q, D) and (G, D) float32 of length 1, on the features' device.
    """
    features = torch.cat([q_feats, g_feats])
    k = min(k, len(features))
    for _ in range(times):
        directions = normalise(features)
        expanded = torch.empty_like(features)
        for start in range(0, len(features), BLOCK):
            rows = slice(start, start + BLOCK)
            similarity, neighbours = torch.topk(directions[rows] @ directions.T, k)
            weights = similarity.clamp_(min=0) ** alpha
            expanded[rows] = torch.einsum("nk,nkd->nd", weights, features[neighbours]) / k
        features = expanded
    features = normalise(features)
    return features[: len(q_feats)], features[len(q_feats) :]
