"""Noise that depends on the seed, the view and at most the image's name: never on the batch."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


def draw_noise(
    seed: int, views: int, names: Sequence[str], per_image: bool, draws: int, shape: tuple[int, int, int]
) -> Tensor:
    """Draw the noise for all views of some images, images outermost, or of all images alike.

    Args:
        seed, views, names, per_image: as in `noise_generators`.
        draws: tensors that each latent needs.
        shape: of a latent, (4, h, w).

    Returns:
        (draws, B * V, 4, h, w) float32 on the CPU; (draws, V, 4, h, w) when all images have the same.
    """
    generators = noise_generators(seed, views, names if per_image else names[:1], per_image)
    sequences = [torch.stack([torch.randn(shape, generator=g) for _ in range(draws)]) for g in generators]
    return torch.stack(sequences, dim=1)


def noise_generators(seed: int, views: int, names: Sequence[str], per_image: bool) -> list[torch.Generator]:
    """One CPU random generator for each pair of image and view, images outermost.

    Generators on the CPU draw the same numbers whatever the model's device.

    Args:
        seed: ``MODEL.SEED``.
        views: V.
        names: B image paths; only the file name counts.
        per_image: False gives all images the same V sequences, so that distances between images carry
            no noise of their own.

    Returns:
        B * V generators, in the order that diffusers' schedulers expect for a batch of B * V latents.
    """
    return [
        torch.Generator().manual_seed(_hash(seed, view, Path(name).name if per_image else ""))
        for name in names
        for view in range(views)
    ]


def _hash(*parts: object) -> int:
    """63 bits of SHA-256: the same in every process and Python version, unlike ``hash``."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
