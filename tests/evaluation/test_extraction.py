"""Features of a loader's images, and how ranks share them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader

from fastreid.config import get_cfg
from fastreid.evaluation import extract_features
from fastreid.evaluation.extraction import split_batches
from fastreid.utils.env import amp_dtype
from fastreid.utils.errors import UserError


class LeftHalf(nn.Module):
    """A feature that tells an image from its mirror image: the pixels of the left half."""

    def forward(self, batch):
        assert not self.training
        assert not torch.is_grad_enabled()
        images = batch["images"]
        return images[:, 0, :, : images.shape[3] // 2].flatten(1).to(torch.bfloat16)


def loader_of(images, batch_size):
    return DataLoader([{"images": image} for image in images], batch_size)


IMAGES = torch.randint(0, 256, (11, 3, 4, 6), dtype=torch.uint8, generator=torch.manual_seed(0))


@pytest.mark.parametrize("batch_size", [1, 4, 11, 20])
def test_features_are_float32_in_the_loaders_order(batch_size):
    features = extract_features(LeftHalf(), loader_of(IMAGES, batch_size))
    assert features.dtype == torch.float32
    assert torch.equal(features, IMAGES[:, 0, :, :3].flatten(1).float())


def test_flip_averages_both_orientations_without_normalising():
    features = extract_features(LeftHalf(), loader_of(IMAGES, 4), flip=True)
    pixels = IMAGES[:, 0].float()
    expected = (pixels[:, :, :3] + pixels.flip(2)[:, :, :3]) / 2
    assert torch.equal(features, expected.flatten(1))


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_restored_even_after_an_error(training):
    model = LeftHalf().train(training)
    extract_features(model, loader_of(IMAGES, 4))
    assert model.training == training
    with pytest.raises(KeyError):
        extract_features(model, DataLoader([{"pictures": 1}]))
    assert model.training == training


def test_batches_that_do_not_fit_into_the_gpu_name_the_setting():
    class Large(nn.Module):
        def forward(self, batch):
            raise torch.cuda.OutOfMemoryError

    with pytest.raises(UserError, match="encoding 4 images takes more than .* lower TEST.IMS_PER_BATCH"):
        extract_features(Large(), loader_of(IMAGES, 4))


def test_features_can_be_changed_afterwards():
    features = extract_features(LeftHalf(), loader_of(IMAGES, 4))
    features += 1
    assert not features.is_inference()


def test_mixed_precision_is_a_setting_for_cuda_alone_unless_the_cpu_is_named():
    settings = get_cfg().TEST.AMP
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert amp_dtype(settings, cuda) is None  # off by default
    settings.ENABLED = True
    assert amp_dtype(settings, cuda) == torch.bfloat16
    settings.DTYPE = "fp16"
    assert amp_dtype(settings, cuda) == torch.float16
    assert amp_dtype(settings, cpu) is None
    settings.DEVICES = ["cpu"]
    assert amp_dtype(settings, cpu) == torch.float16
    assert amp_dtype(settings, cuda) is None
    assert amp_dtype(settings, cpu, enabled=False) is None


@pytest.mark.cuda
def test_encoding_runs_in_the_precision_asked_for():
    class Precision(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8, 4, device="cuda"))

        def forward(self, batch):
            product = torch.ones(len(batch["images"]), 8, device="cuda") @ self.weight
            return product * (product.dtype == torch.bfloat16)

    assert (extract_features(Precision(), loader_of(IMAGES, 4)) == 0).all()
    assert (extract_features(Precision(), loader_of(IMAGES, 4), amp=torch.bfloat16) == 8).all()


def test_an_empty_loader_gives_no_features():
    assert extract_features(LeftHalf(), DataLoader([])).shape == (0, 0)


@given(num_samples=st.integers(0, 300), batch_size=st.integers(1, 40), num_ranks=st.integers(1, 9))
def test_ranks_take_whole_batches_evenly_and_in_order(num_samples, batch_size, num_ranks):
    shares = split_batches(num_samples, batch_size, num_ranks)
    samples = list(range(num_samples))
    assert [s for start, stop in shares for s in samples[start:stop]] == samples
    assert all(start % batch_size == 0 or start == num_samples for start, _ in shares)
    batches = [-(-(stop - start) // batch_size) for start, stop in shares]
    assert len(shares) == num_ranks
    assert max(batches) - min(batches) <= 1
