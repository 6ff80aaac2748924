"""Retrieval features of every row: what is generated, or a baseline, joined with the person feature.

All but Stage 1 alone come from an image and its mirror image, whose features are averaged as TEST.FLIP
averages them. Where there is a weight to choose, there is a feature for each of `WEIGHTS`.
"""

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor
from torch.nn.functional import normalize

from projects.stage2_study.encoders import Encoder
from projects.stage2_study.settings import PARTS, WEIGHTS, Retrieval

Ways = dict[str, Tensor]  # by how a row's features are joined: (N, D) of the encoder's samples
ALONE = "alone"


@torch.inference_mode()
def join_generated(encoder: Encoder, generated: Tensor, retrieval: Retrieval) -> Ways:
    """Join generated features (N, 2, V, D) as FUSION weighted with GENERATED_NECK does.

    ``as published`` is plain concatenation, without the neck.
    """
    parts = through_neck(encoder, generated)
    if retrieval.real_own_view:
        views = torch.tensor([sample.viewid for sample in encoder.samples])
        own = views[:, None] == torch.arange(parts.shape[2])
        parts = torch.where(own[:, None, :, None], encoder.person[:, :, None], parts)
    ways = join_weighted(encoder.person, parts)
    if retrieval.as_published:
        published = torch.cat([encoder.person, generated.flatten(2)], dim=2).mean(1)
        ways = {"as published": published} | ways
    return ways


def through_neck(encoder: Encoder, generated: Tensor) -> Tensor:
    """Return generated features (..., D) as the identity head's neck gives them (..., E)."""
    with torch.inference_mode():
        return encoder.heads(generated.flatten(0, -2)).unflatten(0, generated.shape[:-1])


def join_weighted(person: Tensor, parts: Tensor) -> Ways:
    """Join person features (N, 2, E) and P parts (N, 2, P, C), all of length 1, the parts by each weight."""
    unit, parts = normalize(person, dim=-1).mean(1), normalize(parts, dim=-1).mean(1).flatten(1)
    return {_named(weight): torch.cat([unit, weight * parts], dim=1) for weight in WEIGHTS}


def baseline(encoder: Encoder, kind: str, part_tokens: int) -> Ways:
    """Return the features of a baseline: ``stage 1``, ``flips``, ``constant`` or ``lda``.

    A constant column is what a part that is the same for all images comes to; with weight 1 it is as long as
    the person feature is on average.

    Args:
        part_tokens: 0, or `PARTS`: the linear discriminant analysis has them, too.
    """
    person = encoder.person
    if kind == "stage 1":
        return {ALONE: person[:, 0]}
    if kind == "lda":
        return join_weighted(person, _discriminants(encoder, part_tokens)[:, :, None])
    flipped = person.mean(1)
    if kind == "flips":
        return {ALONE: flipped}
    column = flipped.norm(dim=1).mean().expand(len(flipped), 1)
    return {_named(weight): torch.cat([flipped, weight * column], dim=1) for weight in WEIGHTS}


def _named(weight: float) -> str:
    return f"weight {weight:g}"


def _discriminants(encoder: Encoder, part_tokens: int) -> Tensor:
    """Project the identity tokens to what tells the training identities best apart, (N, 2, at most E)."""
    tokens = encoder.encoded.id_tokens
    own = tokens.shape[2] - PARTS + part_tokens
    trained = np.load(encoder.training_set / "id_tokens.npy")[:, :, :own]
    count, width = trained.shape[0], own * trained.shape[3]
    persons = np.repeat([sample.pid for sample in encoder.train_set.samples], 2)
    most = min(encoder.person.shape[2], encoder.train_set.num_classes - 1, width)
    analysis = LinearDiscriminantAnalysis(n_components=most).fit(trained.reshape(2 * count, width), persons)
    projected = analysis.transform(tokens[:, :, :own].reshape(-1, width).numpy())
    return torch.from_numpy(projected).float().unflatten(0, (-1, 2))
