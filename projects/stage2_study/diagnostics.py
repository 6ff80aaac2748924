"""Does a generator generate views at all?"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastreid.structures import Sample
from projects.stage2_study.encoders import Encoder
from projects.stage2_study.joining import through_neck

Diagnostics = dict[str, float]


def diagnose_generated(encoder: Encoder, generated: Tensor) -> Diagnostics:
    """Diagnose features (N, 2, V, D) that were generated of an encoder's samples, on the test identities."""
    rows = encoder.test_rows
    real, samples = encoder.person[rows, 0], [encoder.samples[row] for row in rows]
    return diagnose(through_neck(encoder, generated[rows, 0]), real, samples)


def diagnose_real(encoder: Encoder) -> Diagnostics:
    """Return what a generator that gives an image's own feature in every view would get.

    Only its cosine is that between a person's real pictures in different views.
    """
    rows = encoder.test_rows
    real, samples = encoder.person[rows, 0], [encoder.samples[row] for row in rows]
    repeated = real[:, None].expand(-1, encoder.train_set.num_views, -1)
    return diagnose(repeated, real, samples) | {"view_cosine": real_view_cosine(real, samples)}


def diagnose(generated: Tensor, real: Tensor, samples: Sequence[Sample]) -> Diagnostics:
    """Compare features generated of images in every view with each other and with real ones.

    Args:
        generated: (N, V, E), behind the neck.
        real: (N, E) of the same images.
        samples: their labels; images of nobody (negative pids) play no part in `right_view`.

    Returns:
        ``view_cosine``: the mean cosine between an image's features of two different views.
        ``right_view``: the share of pairs of an image and another view v than its own whose generated feature
        is nearest, among the person's other pictures, to one in view v; in percent, of the pairs whose person
        has other pictures both in v and elsewhere.
        ``chance``: what a picture drawn at random would get.
        NaN where nothing counts.
    """
    generated, real = normalize(generated, dim=-1), normalize(real, dim=-1)
    alike = generated @ generated.transpose(1, 2)
    different = ~torch.eye(generated.shape[1], dtype=torch.bool)
    hits = [_person_hits(generated[rows], real[rows], views) for rows, views in _by_person(samples)]
    right, chance = (torch.cat(values).double().mean().item() for values in zip(*hits, strict=True))
    cosine = alike[:, different].double().mean().item()
    return {"view_cosine": cosine, "right_view": 100 * right, "chance": 100 * chance}


def _person_hits(generated: Tensor, real: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each pair that counts whether it is right, and what chance gives; n pictures of a person.

    Args:
        generated: (n, V, E) of length 1.
        real: (n, E) of length 1.
        views: (n,).
    """
    count = len(views)
    cosines = generated @ real.T  # (n, V, n)
    cosines[torch.arange(count), :, torch.arange(count)] = -torch.inf  # not the image itself
    asked = torch.arange(generated.shape[1])
    right = views[cosines.argmax(2)] == asked
    in_view = (views[:, None] == asked).sum(0).expand_as(right)
    counts = (views[:, None] != asked) & (in_view > 0) & (in_view < count - 1)
    return right[counts], (in_view / max(count - 1, 1))[counts]


def real_view_cosine(real: Tensor, samples: Sequence[Sample]) -> float:
    """Return the mean cosine between real features (N, E) of one person's pictures in different views."""
    real, cosines = normalize(real, dim=-1), []
    for rows, views in _by_person(samples):
        cosines.append((real[rows] @ real[rows].T)[views[:, None] != views])
    return torch.cat(cosines).double().mean().item()


def _by_person(samples: Sequence[Sample]) -> list[tuple[Tensor, Tensor]]:
    """Return the rows and the views of each person's pictures."""
    rows: dict[int, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        if sample.pid >= 0:
            rows[sample.pid].append(row)
    return [(torch.tensor(own), torch.tensor([samples[row].viewid for row in own])) for own in rows.values()]
