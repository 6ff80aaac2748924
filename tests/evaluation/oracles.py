"""Slow and obvious implementations: sort everything, loop over everything."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st


class Problem(NamedTuple):
    """A retrieval problem's labels."""

    q_pids: np.ndarray
    g_pids: np.ndarray
    q_camids: np.ndarray
    g_camids: np.ndarray

    @property
    def has_match(self) -> bool:
        pairs = zip(self.q_pids, self.q_camids, strict=True)
        return any(((self.g_pids == pid) & (self.g_camids != camid)).any() for pid, camid in pairs)


def rank_by_sorting(distmat, problem: Problem, max_rank: int = 50):
    """(cmc, all_AP, all_INP): a stable argsort and a walk down the list for each query."""
    first_hits, precisions, penalties = [], [], []
    for row, pid, camid in zip(distmat, problem.q_pids, problem.q_camids, strict=True):
        rank, hit_ranks = 0, []
        for item in np.argsort(row, kind="stable"):
            if problem.g_pids[item] == pid and problem.g_camids[item] == camid:
                continue
            rank += 1
            if problem.g_pids[item] == pid:
                hit_ranks.append(rank)
        if hit_ranks:
            first_hits.append(hit_ranks[0])
            precisions.append(sum((k + 1) / r for k, r in enumerate(hit_ranks)) / len(hit_ranks))
            penalties.append(len(hit_ranks) / hit_ranks[-1])
    length = min(max_rank, len(problem.g_pids))
    cmc = [sum(first <= r for first in first_hits) / len(first_hits) for r in range(1, length + 1)]
    return np.array(cmc), np.array(precisions), np.array(penalties)


def float64_distances(q_feats, g_feats, metric: str):
    """(Q, G) float64, rounded so that what is equal on paper is equal here."""
    distances = np.empty((len(q_feats), len(g_feats)))
    for i, q in enumerate(q_feats.astype(np.float64)):
        for j, g in enumerate(g_feats.astype(np.float64)):
            if metric == "euclidean":
                distances[i, j] = ((q - g) ** 2).sum()
            else:
                distances[i, j] = -(q @ g) / max(np.sqrt((g * g).sum()), 1e-12)
    return distances.round(9)


def rerank_densely(features, num_queries: int, k1: int, k2: int, lambda_value: float):
    """Zhong et al., CVPR 2017, over dense N x N arrays."""
    original = ((features[:, None] - features[None]) ** 2).sum(-1)
    original /= original.max(1, keepdims=True)
    order = np.argsort(original, axis=1, kind="stable")

    def reciprocal(image, k):
        return {int(j) for j in order[image, : k + 1] if image in order[j, : k + 1]}

    weights = np.zeros_like(original)
    for image in range(len(features)):
        members = reciprocal(image, k1)
        for candidate in list(members):
            near = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(near & reciprocal(image, k1)) > 2 / 3 * len(near):
                members |= near
        members = sorted(members)
        weights[image, members] = np.exp(-original[image, members])
        weights[image] /= weights[image].sum()
    encodings = np.array([weights[order[image, :k2]].mean(0) for image in range(len(features))])
    overlap = np.minimum(encodings[:num_queries, None], encodings[None]).sum(-1)
    jaccard = 1 - overlap / np.maximum(encodings[:num_queries, None], encodings[None]).sum(-1)
    mixed = (1 - lambda_value) * jaccard + lambda_value * original[:num_queries]
    return mixed[:, num_queries:]


def clustered_features(rng, num_images: int, num_people: int, width: int, spread: float):
    """(N, D) float32 features around a centre per person, and the (N,) persons."""
    pids = rng.integers(0, num_people, num_images)
    centres = rng.normal(size=(num_people, width))
    return (centres[pids] + spread * rng.normal(size=(num_images, width))).astype(np.float32), pids


@st.composite
def problems(draw, max_queries: int = 12, max_gallery: int = 60) -> Problem:
    """Labels of any sign with gaps; queries without matches, one camera and one-item galleries included."""
    num_q, num_g = draw(st.integers(1, max_queries)), draw(st.integers(1, max_gallery))
    pids = draw(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=8, unique=True))
    camids = draw(st.lists(st.integers(-5, 1000), min_size=1, max_size=4, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return Problem(*(rng.choice(values, n) for values in (pids, camids) for n in (num_q, num_g)))
