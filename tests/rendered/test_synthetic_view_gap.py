"""With a real view gap every view shows what the others hardly do."""

from dataclasses import replace

import numpy as np
import pytest

from fastreid.rendered import BenchmarkSpec, make_plan, write_benchmark
from fastreid.rendered.camera import sample_camera, sample_shot, set_apart
from fastreid.rendered.layouts import LAYOUTS
from fastreid.rendered.person import ACCENT, DETAIL_CHOICES, attributes_of, sample_person
from fastreid.rendered.renderer import render
from fastreid.rendered.styles import STYLES, sample_styled_person, tastes
from fastreid.utils.errors import UserError

FROM_ABOVE = ("crown_colour", "left_shoulder", "right_shoulder", "collar")
FROM_THE_GROUND = ("leg_colour", "knees", "socks", "toes")


def camera_of(view, seed):
    rng = np.random.default_rng(seed)
    return set_apart(sample_camera(rng, view), None, rng)


def effect(view, details):
    """The mean difference that other colours of `details` make to a view's pictures, 0-255."""
    differences = []
    for seed in range(24):
        person = sample_styled_person(np.random.default_rng(seed))
        other = {name: next(c for c in ACCENT if c != getattr(person.details, name)) for name in details}
        changed = replace(person, details=replace(person.details, **other))
        pictures = (
            render(who, camera_of(view, seed), (64, 32), np.random.default_rng(seed))
            for who in (person, changed)
        )
        first, second = (picture.astype(float) for picture in pictures)
        differences.append(np.abs(first - second).mean())
    return np.mean(differences)


def test_crown_and_shoulders_are_seen_from_above():
    assert effect("aerial", FROM_ABOVE) > 3 * effect("ground", FROM_ABOVE)


@pytest.mark.parametrize("view", ["ground", "wearable"])
def test_legs_and_shoes_are_seen_from_the_ground(view):
    assert effect(view, FROM_THE_GROUND) > 1.5 * effect("aerial", FROM_THE_GROUND)


@pytest.mark.parametrize("name", DETAIL_CHOICES)
def test_a_style_says_something_of_every_detail_and_not_all(name):
    probabilities = tastes()[name]
    assert probabilities.shape == (STYLES, len(DETAIL_CHOICES[name]))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    overall = probabilities.mean(axis=0)
    entropy = -(overall * np.log2(overall)).sum()
    told = (probabilities * np.log2(probabilities / overall)).sum(axis=1).mean()  # bits, by the style
    assert 0.1 * entropy < told < 0.5 * entropy


def test_people_of_all_looks_occur_and_have_the_published_attributes():
    people = [sample_styled_person(np.random.default_rng(seed)) for seed in range(400)]
    for name, values in DETAIL_CHOICES.items():
        assert {getattr(person.details, name) for person in people} == set(values)
    assert all(len(attributes_of(person)) == 88 for person in people)


def test_two_people_hardly_share_what_one_view_shows():
    people = [sample_styled_person(np.random.default_rng(seed)) for seed in range(400)]
    for names in (("crown", *FROM_ABOVE), ("front", "front_colour", "legs", *FROM_THE_GROUND)):
        looks = {tuple(getattr(person.details, name) for name in names) for person in people}
        assert len(looks) > 0.95 * len(people)


def test_cargos_first_drone_looks_straight_down():
    elevations = LAYOUTS["CARGO"].elevations
    for number in range(1, 6):
        rng = np.random.default_rng(number)
        camera = set_apart(sample_camera(rng, "aerial"), elevations[number], rng)
        shots = [sample_shot(rng, camera, 1.7) for _ in range(50)]
        angles = np.degrees([np.arcsin(-shot.basis[2, 2]) for shot in shots])
        low, high = elevations[number]
        assert low - 1e-3 <= angles.min()
        assert angles.max() <= high + 1e-3
        assert (angles.min() > 75) == (number == 1)


def test_the_gap_changes_pictures_and_nothing_else():
    real, none = (
        make_plan("LAGPeR", BenchmarkSpec(3, 4, 2, (32, 16), view_gap=gap)) for gap in ("real", "none")
    )
    assert real.images == none.images
    assert real.protocol_files == none.protocol_files
    assert sample_person(np.random.default_rng(1)).details is None


def test_a_folder_keeps_its_gap(tmp_path):
    spec = BenchmarkSpec(1, 1, 2, (32, 16))
    write_benchmark("AG_ReID_v1", tmp_path, spec, workers=0)
    with pytest.raises(UserError, match="view_gap real -> none"):
        write_benchmark("AG_ReID_v1", tmp_path, replace(spec, view_gap="none"), workers=0)


def test_an_unknown_gap_is_named():
    with pytest.raises(UserError, match="--view-gap is 'wide'"):
        BenchmarkSpec(view_gap="wide")
