"""Too little memory on a GPU: recognised in each of its forms, and told in one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastreid.utils.errors import UserError

_FAILURES = re.compile(r"(?i:cuda).*out of memory|_ALLOC(ATION)?_FAILED")
_TOO_LARGE = re.compile(
    r"can't allocate memory|size calculation overflowed|[Oo]verflow when unpacking|numel: integer"
)


def is_allocation_failure(error: BaseException) -> bool:
    """Tell whether `error` says that the GPU's memory was too small.

    Torch's own allocator raises `OutOfMemoryError`. The CUDA runtime, NCCL, cuDNN, cuBLAS and their kin
    allocate beside it; theirs is any RuntimeError, whose text has the status: CUBLAS_STATUS_ALLOC_FAILED, …
    """
    return isinstance(error, torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _FAILURES.search(str(error)) is not None
    )


@contextmanager
def memory_shortage_named(what: str, fix: str) -> Iterator[None]:
    """Turn an allocation failure in the block into the UserError of `memory_shortage`."""
    try:
        yield
    except RuntimeError as error:
        if is_allocation_failure(error):
            raise memory_shortage(what, fix) from error
        raise


@contextmanager
def pinning_shortage_named() -> Iterator[None]:
    """Turn an allocation failure in the block, which pins memory of the CPU, into a UserError that says so.

    CUDA's text for it is the same as for a GPU's memory that is too small.
    """
    try:
        yield
    except RuntimeError as error:
        if is_allocation_failure(error):
            raise UserError(
                "out of pinned memory: the CPU has no room left for a batch on its way to the GPU",
                "free some, or lower the batch size or the number of processes",
            ) from error
        raise


@contextmanager
def too_large_named(what: str, fix: str) -> Iterator[None]:
    """Turn the failure to make tensors that this machine has no memory or no numbers for into a UserError."""
    try:
        yield
    except (RuntimeError, TypeError, MemoryError, OverflowError) as error:
        if isinstance(error, RuntimeError | TypeError) and not _TOO_LARGE.search(str(error)):
            raise
        raise UserError(f"{what} is too large for the memory of this machine", fix) from error


def memory_shortage(what: str, fix: str) -> UserError:
    """Return the error that says that the GPU has too little memory for `what`, and what it has."""
    return UserError(f"CUDA out of memory: {what} takes more than the GPU has left{_figures()}", fix)


def _figures() -> str:
    """Tell what the current device has and who holds it; nothing where CUDA is not in use."""
    if not torch.cuda.is_initialized():
        return ""
    free, total = torch.cuda.mem_get_info()
    peak, elsewhere = torch.cuda.max_memory_allocated(), total - free - torch.cuda.memory_reserved()
    parts = [f"{size / 1e9:.2f} GB" for size in (total, peak, elsewhere)]
    return " ({}; tensors here held up to {}; CUDA itself and other processes hold {})".format(*parts)
