"""The precision of float32: exact in the block, and as before after it. The choice of cuDNN's kernels."""

import warnings
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastreid.utils.env import cudnn_kernels, exact_float32


def older_settings():
    yield from (partial(torch.set_float32_matmul_precision, name) for name in ("highest", "high", "medium"))
    for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
        yield from (partial(setattr, backend, "allow_tf32", value) for value in (True, False))


def precision_places() -> list:
    """Everything that has torch's newer setting (2.9), parents first."""
    backends = torch.backends
    leaves = backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul
    return [backends, backends.cudnn, *leaves] if hasattr(backends, "fp32_precision") else []


def newer_settings():
    for place in precision_places():
        yield from (partial(setattr, place, "fp32_precision", name) for name in ("none", "ieee", "tf32"))


def precisions() -> list:
    """What every getter says; torch refuses some where a program has mixed the interfaces."""
    told = [place.fp32_precision for place in precision_places()]
    for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
        try:
            told.append(backend.allow_tf32)
        except RuntimeError:
            told.append("refused")
    return told


@pytest.fixture
def plain_precision():
    yield
    for place in precision_places():
        place.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


@given(made=st.lists(st.sampled_from([*older_settings(), *newer_settings()]), max_size=4))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exact_float32_restores_what_either_interface_or_both_had_set(plain_precision, made):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in made:
            make()
        before = precisions()
        with exact_float32():
            assert torch.get_float32_matmul_precision() == "highest"
            assert set(precisions()) <= {"ieee", False}
        assert precisions() == before


@pytest.mark.skipif(not precision_places(), reason="this torch has no fp32_precision")
def test_exact_float32_leaves_products_following_the_setting_of_all(plain_precision):
    torch.backends.cuda.matmul.fp32_precision = "none"
    with exact_float32():
        pass
    torch.backends.fp32_precision = "tf32"
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"


@given(made=st.lists(st.sampled_from([*older_settings(), *newer_settings()]), max_size=3))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_choice_of_cudnns_kernels_changes_no_precision(plain_precision, made):
    for make in made:
        make()
    cudnn = torch.backends.cudnn
    before, chosen = precisions(), (cudnn.benchmark, cudnn.deterministic)
    for benchmark in (True, False):
        with cudnn_kernels(benchmark):
            assert (cudnn.benchmark, cudnn.deterministic) == (benchmark, not benchmark)
            assert precisions() == before
        assert (cudnn.benchmark, cudnn.deterministic) == chosen
