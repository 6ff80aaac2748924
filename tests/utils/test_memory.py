"""A GPU whose memory is too small: its many errors are known for what they are, and told in one line."""

import pytest
import torch

from fastreid.data.loaders import DEAD_WORKER
from fastreid.utils.errors import UserError
from fastreid.utils.memory import (
    is_allocation_failure,
    memory_shortage_named,
    pinning_shortage_named,
)

FAILURES = (
    torch.cuda.OutOfMemoryError("Allocation on device"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
)
OTHERS = (
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: device-side assert triggered"),
    ValueError("out of memory"),
    UserError("the disk is full"),
)


def test_allocation_failures_of_torch_and_of_cudas_libraries_are_told_from_other_errors():
    assert all(is_allocation_failure(error) for error in FAILURES)
    assert not any(is_allocation_failure(error) for error in OTHERS)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as raised, memory_shortage_named("a step", "do less"):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("error", FAILURES, ids=str)
def test_a_shortage_is_one_line_with_what_the_gpu_has(monkeypatch, error):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1 * 10**9, 24 * 10**9))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 17 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 18 * 10**9)
    with pytest.raises(UserError) as raised, memory_shortage_named("a step of 64 images", "do less"):
        raise error
    assert str(raised.value) == (
        "CUDA out of memory: a step of 64 images takes more than the GPU has left (24.00 GB; tensors here"
        " held up to 17.00 GB; CUDA itself and other processes hold 5.00 GB); do less"
    )


def test_figures_are_given_only_where_cuda_is_in_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    with pytest.raises(UserError, match="GPU has left; do less"), memory_shortage_named("a step", "do less"):
        raise FAILURES[0]


@pytest.mark.parametrize("error", FAILURES, ids=str)
def test_pinned_memory_that_is_exhausted_is_not_told_as_the_gpus(error):
    named = memory_shortage_named("a step", "do less")
    with pytest.raises(UserError, match="^out of pinned memory: the CPU"), named, pinning_shortage_named():
        raise error


def test_a_loader_worker_that_died_is_no_shortage_of_the_gpu():
    assert not is_allocation_failure(RuntimeError(DEAD_WORKER))
