"""Conditions of a tiny Stage-2 generator, and a count of its UNet's calls."""

import torch

DIM = 128  # a latent of 4 x 8 x 4
ID_TOKENS = 3


def conditions(batch: int = 3, views: int = 2) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    source = torch.Generator().manual_seed(7)
    id_tokens = torch.randn(batch, ID_TOKENS, DIM, generator=source)
    prototypes = torch.randn(views, DIM, generator=source)
    return id_tokens, prototypes, [f"{index}.jpg" for index in range(batch)]


def count_rows(
    unet: torch.nn.Module, most: int | None = None, failure: type[Exception] = torch.cuda.OutOfMemoryError
) -> list[int]:
    """The batch size of each call from now on; with `most`, larger calls raise `failure`."""
    calls = []

    def record(module, args, kwargs):
        calls.append(len(args[0]))
        if most is not None and len(args[0]) > most:
            raise failure("simulated CUBLAS_STATUS_ALLOC_FAILED")

    unet.register_forward_pre_hook(record, with_kwargs=True)
    return calls
