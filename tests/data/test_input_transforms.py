"""Resize and augmentation of uint8 images."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fastreid.config import CfgNode, check_config, get_cfg
from fastreid.data import build_transforms
from fastreid.data.transforms import PadAndRandomCrop, augmentation_seed, seeded_rng
from fastreid.utils.errors import UserError


@pytest.fixture
def image() -> torch.Tensor:
    """Smooth uint8 (3, 50, 30) noise without zeros."""
    coarse = np.random.default_rng(0).integers(30, 226, (7, 5, 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((30, 50), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.fixture
def plain_cfg() -> CfgNode:
    """All augmentations off."""
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN, cfg.INPUT.SIZE_TEST = [64, 32], [48, 24]
    for key in ("FLIP", "PADDING", "REA", "CJ"):
        cfg.INPUT[key].ENABLED = False
    return cfg


@pytest.mark.parametrize(("is_train", "size"), [(True, (64, 32)), (False, (48, 24))])
def test_images_are_resized_as_pil_does_it(plain_cfg, image, is_train, size):
    resized = build_transforms(plain_cfg, is_train)(image)
    source = Image.fromarray(image.permute(1, 2, 0).numpy())
    expected = np.asarray(source.resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
    assert resized.dtype == torch.uint8
    assert resized.shape == (3, *size)
    assert np.abs(resized.permute(1, 2, 0).numpy() - expected).max() <= 2


def test_test_images_are_not_augmented(image):
    cfg = get_cfg()
    transform = build_transforms(cfg, is_train=False)
    assert torch.equal(transform(image), transform(image))


def test_flip_mirrors_left_and_right_with_its_probability(plain_cfg, image):
    resized = build_transforms(plain_cfg, is_train=True)(image)
    plain_cfg.INPUT.FLIP.ENABLED = True
    for probability, expected in ((0.0, resized), (1.0, resized.flip(-1))):
        plain_cfg.INPUT.FLIP.PROB = probability
        assert torch.equal(build_transforms(plain_cfg, is_train=True)(image), expected)
    plain_cfg.INPUT.FLIP.PROB = 0.3
    flip = build_transforms(plain_cfg, is_train=True)
    torch.manual_seed(0)
    flipped = sum(not torch.equal(flip(image), resized) for _ in range(400))
    assert 85 <= flipped <= 155  # 120 expected, 4 standard deviations = 37


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_pad_and_crop_gives_every_window_of_the_padded_image(mode):
    image = torch.arange(1, 3 * 5 * 4 + 1, dtype=torch.uint8).view(3, 5, 4)
    padded = np.pad(image.numpy(), ((0, 0), (2, 2), (2, 2)), mode=mode)
    windows = {
        padded[:, top : top + 5, left : left + 4].tobytes(): (top, left)
        for top in range(5)
        for left in range(5)
    }
    crop = PadAndRandomCrop(2, mode)
    torch.manual_seed(0)
    seen = [windows[crop(image).contiguous().numpy().tobytes()] for _ in range(500)]
    assert len(set(seen)) == 25
    assert max(map(seen.count, set(seen))) < 50  # 20 expected of each


def test_a_padding_larger_than_the_image_leaves_black():
    image = torch.full((3, 4, 4), 200, dtype=torch.uint8)
    torch.manual_seed(0)
    sums = {int((PadAndRandomCrop(6)(image) > 0).sum()) for _ in range(300)}
    assert 0 in sums
    assert max(sums) == 48


@pytest.fixture
def erase(plain_cfg) -> Callable[..., torch.Tensor]:
    """Apply random erasing of a value to a black image, with a probability."""

    def erased(value: list[float], probability: float = 1.0) -> torch.Tensor:
        plain_cfg.INPUT.REA.ENABLED = True
        plain_cfg.INPUT.REA.PROB, plain_cfg.INPUT.REA.VALUE = probability, value
        return build_transforms(plain_cfg, is_train=True)(torch.zeros(3, 64, 32, dtype=torch.uint8))

    return erased


def erased_rectangle(image: torch.Tensor, value: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width of the one rectangle of `value` in a black image; (0, 0) if there is none."""
    mask = (image != 0).any(0)
    if not mask.any():
        return 0, 0
    rows, columns = torch.where(mask.any(1))[0], torch.where(mask.any(0))[0]
    height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    assert int(mask.sum()) == height * width
    assert {tuple(pixel) for pixel in image[:, mask].T.tolist()} == {value}
    return height, width


def rectangle_by_definition(rng: random.Random, height: int, width: int) -> tuple[int, int]:
    """Draw the sides of a rectangle until it fits, up to ten times: area and log-ratio are uniform."""
    for _ in range(10):
        area = rng.uniform(0.02, 0.33) * height * width
        ratio = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            return h, w
    return 0, 0


def test_erasing_fills_one_rectangle_as_the_definition_draws_it(erase):
    torch.manual_seed(0)
    rng, draws = random.Random(0), 1500
    found = [erased_rectangle(erase([123.675, 116.28, 103.53]), (124, 116, 104)) for _ in range(draws)]
    expected = [rectangle_by_definition(rng, 64, 32) for _ in range(draws)]
    for measure in (lambda h, w: h * w / (64 * 32), lambda h, w: h / max(w, 1)):
        shares = np.linspace(0.05, 0.95, 19)
        quantiles = [np.quantile([measure(*sides) for sides in drawn], shares) for drawn in (found, expected)]
        np.testing.assert_allclose(*quantiles, rtol=0.15)
    areas = [h * w / (64 * 32) for h, w in found]
    assert 0.01 < min(areas) < 0.04
    assert 0.3 < max(areas) < 0.35


def test_erasing_happens_with_its_probability(erase):
    torch.manual_seed(0)
    erased = sum(erased_rectangle(erase([9, 9, 9], 0.3), (9, 9, 9)) != (0, 0) for _ in range(400))
    assert 85 <= erased <= 155  # 120 expected, 4 standard deviations = 37


def test_images_are_cropped_then_mirrored_then_erased(plain_cfg, image):
    for key in ("FLIP", "PADDING", "REA"):
        plain_cfg.INPUT[key].ENABLED, plain_cfg.INPUT[key].PROB = True, 1.0
    plain_cfg.INPUT.PADDING.SIZE = 5
    plain_cfg.INPUT.SIZE_TEST = plain_cfg.INPUT.SIZE_TRAIN
    steps = [PadAndRandomCrop(5), v2.RandomHorizontalFlip(1.0)]
    steps.append(v2.RandomErasing(1.0, value=[124, 116, 104]))
    with seeded_rng(3):
        augmented = build_transforms(plain_cfg, is_train=True)(image)
    with seeded_rng(3):
        expected = build_transforms(plain_cfg, is_train=False)(image)
        for step in steps:
            expected = step(expected)
    assert torch.equal(augmented, expected)


def test_colour_jitter_changes_colours_only(plain_cfg, image):
    resized = build_transforms(plain_cfg, is_train=True)(image)
    plain_cfg.INPUT.CJ.ENABLED = True
    plain_cfg.INPUT.CJ.PROB = 1.0
    jitter = build_transforms(plain_cfg, is_train=True)
    torch.manual_seed(0)
    jittered = jitter(image)
    assert jittered.dtype == torch.uint8
    assert jittered.shape == resized.shape
    assert not torch.equal(jittered, resized)
    assert (jittered.float() - resized.float()).abs().mean() < 40


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.SIZE_TRAIN", "[256]"),
        ("INPUT.SIZE_TEST", "[0, 128]"),
        ("INPUT.FLIP.PROB", "1.5"),
        ("INPUT.REA.PROB", "-0.1"),
        ("INPUT.REA.VALUE", "[0.0, 0.0]"),
        ("INPUT.REA.VALUE", "[0.0, 0.0, 300.0]"),
        ("INPUT.PADDING.MODE", "black"),
        ("INPUT.PADDING.SIZE", "-1"),
        ("INPUT.CJ.HUE", "0.6"),
        ("INPUT.CJ.BRIGHTNESS", "-1.0"),
    ],
)
def test_values_out_of_range_are_named_by_their_key(key, value):
    cfg = get_cfg()
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=key):
        check_config(cfg)


def test_a_padding_is_smaller_than_the_image():
    cfg = get_cfg()
    cfg.INPUT.PADDING.SIZE = 128
    with pytest.raises(UserError, match=r"INPUT\.PADDING\.SIZE is 128; it must be less than .* \[256, 128\]"):
        build_transforms(cfg, is_train=True)
    build_transforms(cfg, is_train=False)
    cfg.INPUT.PADDING.ENABLED = False
    build_transforms(cfg, is_train=True)


def test_seeding_inside_a_block_leaves_the_generator_outside_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded_rng(99):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(3), expected)
    with seeded_rng(99):
        assert torch.equal(torch.rand(2), inside)


def test_augmentation_seeds_differ_by_draw_and_by_run():
    seeds = [augmentation_seed(seed, draw) for seed in range(10) for draw in range(1000)]
    assert len(set(seeds)) > 9_990  # 32 bits: about 0.01 collisions expected
    assert all(0 <= seed < 2**32 for seed in seeds)
