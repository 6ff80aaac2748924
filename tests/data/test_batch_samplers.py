"""Which images a batch holds."""

from collections import Counter
from itertools import chain, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastreid.data import SAMPLER_REGISTRY, Sample
from fastreid.utils.errors import UserError

BY_IDENTITY = ["NaiveIdentitySampler", "BalancedIdentitySampler", "AGSampler"]
EVERY = ["TrainingSampler", *BY_IDENTITY]


def draw_batches(name, samples, count, batch_size=12, num_instance=3, seed=7, **options):
    """`count` batches of (index, number) pairs."""
    sampler = SAMPLER_REGISTRY.get(name)(samples, batch_size, num_instance, seed, **options)
    return [[tuple(draw) for draw in batch] for batch in islice(sampler, count)]


def indices(batches):
    return [[index for index, _ in batch] for batch in batches]


@pytest.fixture
def samples(make_samples):
    """9 identities with 3 to 11 images over two aerial and two ground cameras."""
    return make_samples(
        {pid: {(0, 0): 1, (1, 0): 1 + pid % 3, (2, 1): 1 + pid % 4, (3, 1): pid % 5} for pid in range(9)}
    )


def identity_samples(sizes):
    return [Sample(f"{pid}/{i}", pid, 0, 0) for pid, size in enumerate(sizes) for i in range(size)]


@pytest.mark.parametrize("name", BY_IDENTITY)
def test_a_batch_is_p_identities_of_k_images(samples, name):
    for batch in indices(draw_batches(name, samples, 40)):
        pids = [samples[index].pid for index in batch]
        groups = [pids[first : first + 3] for first in range(0, 12, 3)]
        assert all(len(set(group)) == 1 for group in groups)
        assert len(set(pids)) == 4
        assert len(set(batch)) == 12, "every identity has 3 images, so none is repeated"


@pytest.mark.parametrize("name", BY_IDENTITY)
@pytest.mark.parametrize("images", [1, 2, 3])
def test_an_identity_with_few_images_repeats_them_in_turn(name, images):
    samples = identity_samples([images] * 4)
    for batch in indices(draw_batches(name, samples, 10, batch_size=20, num_instance=5)):
        counts = Counter(batch)
        assert len(counts) == 4 * images
        assert set(counts.values()) <= {5 // images, -(-5 // images)}


def test_the_training_sampler_gives_every_image_once_a_pass(samples):
    stream = list(chain(*indices(draw_batches("TrainingSampler", samples, 60, batch_size=7))))
    size = len(samples)
    passes = [stream[first : first + size] for first in range(0, len(stream) - size + 1, size)]
    assert len(passes) > 5
    assert all(sorted(one) == list(range(size)) for one in passes)
    assert passes[0] != passes[1]


def test_the_naive_sampler_deals_out_every_image_once_a_pass():
    samples = identity_samples([6] * 4)  # a pass is 2 batches of all identities x 3
    batches = indices(draw_batches("NaiveIdentitySampler", samples, 20))
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        assert sorted(first + second) == list(range(24))


def test_the_naive_sampler_shows_identities_in_proportion_to_their_images():
    samples = identity_samples([30] * 8 + [3] * 8)
    batches = indices(draw_batches("NaiveIdentitySampler", samples, 400))
    counts = Counter(samples[index].pid for batch in batches for index in batch)
    many, few = sum(counts[pid] for pid in range(8)), sum(counts[pid] for pid in range(8, 16))
    assert 6 < many / few <= 10.5


@pytest.mark.parametrize("name", ["BalancedIdentitySampler", "AGSampler"])
def test_balanced_samplers_show_every_identity_once_a_pass(samples, name):
    samples = [sample for sample in samples if sample.pid < 8]  # a pass is 2 batches of 4
    batches = indices(draw_batches(name, samples, 20))
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        assert {samples[index].pid for index in first + second} == set(range(8))


def spread(sizes: list[int], images: int) -> list[int]:
    """The most even way to take `images` from groups of these sizes, largest shares first."""
    taken = [0] * len(sizes)
    for _ in range(min(images, sum(sizes))):
        open_groups = [g for g in range(len(sizes)) if taken[g] < sizes[g]]
        taken[min(open_groups, key=lambda g: taken[g])] += 1
    return sorted(taken, reverse=True)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3).filter(any), min_size=2, max_size=5),
    num_instance=st.integers(1, 7),
    name=st.sampled_from(["BalancedIdentitySampler", "AGSampler"]),
)
def test_images_are_spread_over_cameras_or_views_as_evenly_as_the_identity_allows(sizes, num_instance, name):
    samples = [
        Sample(
            "", pid, group if name == "BalancedIdentitySampler" else 0, group if name == "AGSampler" else 0
        )
        for pid, groups in enumerate(sizes)
        for group, images in enumerate(groups)
        for _ in range(images)
    ]
    batches = indices(draw_batches(name, samples, 6, len(sizes) * num_instance, num_instance))
    for batch in batches:
        for pid, groups in enumerate(sizes):
            distinct = {index for index in batch if samples[index].pid == pid}
            taken = Counter(samples[index].camid + samples[index].viewid for index in distinct)
            assert sorted((taken[group] for group in range(3)), reverse=True) == spread(groups, num_instance)


def test_the_odd_image_of_the_ag_sampler_comes_from_either_view(make_samples):
    samples = make_samples({0: {(0, 0): 5, (1, 1): 5}})
    batches = indices(draw_batches("AGSampler", samples, 100, batch_size=3))
    aerial = Counter(sum(samples[index].viewid == 0 for index in batch) for batch in batches)
    assert set(aerial) == {1, 2}
    assert min(aerial.values()) > 25


@pytest.mark.parametrize("name", EVERY)
def test_the_seed_alone_decides(samples, name):
    assert draw_batches(name, samples, 8) == draw_batches(name, samples, 8)
    assert draw_batches(name, samples, 8) != draw_batches(name, samples, 8, seed=8)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("start", [1, 5, 37])
def test_a_later_start_gives_the_same_later_batches(samples, name, start):
    assert draw_batches(name, samples, 4, start_iter=start) == draw_batches(name, samples, start + 4)[start:]


@pytest.mark.parametrize("name", EVERY)
def test_draws_are_numbered_over_the_whole_run(samples, name):
    numbers = [number for batch in draw_batches(name, samples, 5) for _, number in batch]
    assert numbers == list(range(60))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("world_size", [2, 4])
def test_the_ranks_parts_make_up_the_batch_of_one_process(samples, name, world_size):
    parts = [draw_batches(name, samples, 10, rank=rank, world_size=world_size) for rank in range(world_size)]
    joined = [list(chain(*batch_parts)) for batch_parts in zip(*parts, strict=True)]
    assert joined == draw_batches(name, samples, 10)


@pytest.mark.parametrize("name", BY_IDENTITY)
@pytest.mark.parametrize(("num_instance", "world_size"), [(5, 1), (3, 8), (0, 1)])
def test_a_batch_that_cannot_be_divided_is_refused(samples, name, num_instance, world_size):
    with pytest.raises(UserError, match=r"SOLVER\.IMS_PER_BATCH is 12, .* in identities") as error:
        draw_batches(name, samples, 1, num_instance=num_instance, world_size=world_size)
    assert "\n" not in str(error.value)


def test_a_uniform_batch_must_divide_over_the_ranks_only(samples):
    assert len(draw_batches("TrainingSampler", samples, 1, num_instance=5, world_size=4)[0]) == 3
    with pytest.raises(UserError, match="12, which 5 process.* share in images; use a multiple of 5"):
        draw_batches("TrainingSampler", samples, 1, world_size=5)


@pytest.mark.parametrize("name", BY_IDENTITY)
def test_too_few_identities_are_refused_with_numbers_and_a_way_out(samples, name):
    with pytest.raises(
        UserError, match="needs 10 identities .* has 9; set SOLVER.IMS_PER_BATCH to 27 or less"
    ):
        draw_batches(name, samples, 1, batch_size=30)
    assert len(draw_batches(name, samples, 1, batch_size=27)[0]) == 27
    with pytest.raises(UserError, match="has 9; use 9 processes or fewer"):
        draw_batches(name, samples, 1, batch_size=30, world_size=10)


@pytest.mark.parametrize("name", BY_IDENTITY)
@pytest.mark.parametrize(
    ("wanted", "processes", "fitted"),
    [(27, 1, 27), (30, 1, 27), (300, 2, 24), (300, 8, 24), (300, 16, 48)],  # 9 identities of 3 images
)
def test_a_batch_is_fitted_to_the_identities_that_processes_share(samples, name, wanted, processes, fitted):
    sampler = SAMPLER_REGISTRY.get(name)
    assert sampler.fitted_batch_size(samples, wanted, 3, processes) == fitted


def test_a_uniform_batch_of_few_images_repeats_them(samples):
    assert SAMPLER_REGISTRY.get("TrainingSampler").fitted_batch_size(samples, 300, 3, 1) == 300


def test_an_unknown_sampler_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'AGSampler'"):
        SAMPLER_REGISTRY.get("AGSamplr")
