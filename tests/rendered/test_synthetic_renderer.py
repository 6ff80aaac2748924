"""What the pictures show: the views' geometry, the identity's colours, and the light."""

from dataclasses import replace

import numpy as np
import pytest

from fastreid.rendered.body import Pose, build_body, sample_pose
from fastreid.rendered.camera import at_night, look_along, sample_camera, sample_shot
from fastreid.rendered.person import (
    ATTRIBUTE_NAMES,
    TOP,
    Person,
    attributes_of,
    sample_person,
)
from fastreid.rendered.raycast import first_hits, perspective_boxes
from fastreid.rendered.renderer import render, render_jpeg

VIEWS = ("aerial", "ground", "wearable")
PERSON = Person(
    stature="medium", build="average", skin="light", hair_style="short", hair_colour="black", hat="none",
    hat_colour="red", top="long_sleeve", top_colour="red", top_pattern="plain", second_colour="white",
    bottom="trousers", bottom_colour="navy", shoe_colour="black", bag="none", bag_colour="black",
    height=1.75, girth=1.0,
)  # fmt: skip
STANDING = Pose(heading=0.0, phase=0.0, swing=0.0, lean=0.0, elbows=(0.1, 0.1), spread=0.05)


def body_box(person, pose, eye, basis):
    box = perspective_boxes(build_body(person, pose)[0], eye, basis)
    return np.concatenate([box[:, :2].min(axis=0), box[:, 2:].max(axis=0)])


def test_a_body_is_as_tall_as_its_person_and_stands_on_the_ground():
    distance = 1000.0  # so far away that the projection is parallel
    eye = np.float32([0, -distance, PERSON.height / 2])
    left, bottom, right, top = distance * body_box(PERSON, STANDING, eye, look_along(np.array([0.0, 1, 0])))
    assert bottom + PERSON.height / 2 == pytest.approx(0, abs=0.03)
    assert top - bottom == pytest.approx(PERSON.height, rel=0.03)
    assert 0.2 < (right - left) / PERSON.height < 0.4


@pytest.mark.parametrize("elevation", [0, 15, 45, 80])
def test_height_is_foreshortened_by_the_cosine_of_the_elevation(elevation):
    """A point z above the ground and y deep stands z cos(elevation) + y sin(elevation) up the picture."""
    radians, distance = np.radians(elevation), 1000.0
    forward = np.array([0, np.cos(radians), -np.sin(radians)])
    eye = (-distance * forward).astype(np.float32)
    boxes = distance * perspective_boxes(build_body(PERSON, STANDING)[0], eye, look_along(forward))
    middles = (boxes[:, 1] + boxes[:, 3]) / 2
    parts = build_body(PERSON, STANDING)[0]
    ends = parts.origin + parts.axes[:, :, 2] * parts.length[:, None] / 2
    single = np.flatnonzero(parts.length == 0)
    expected = ends[:, 2] * np.cos(radians) + ends[:, 1] * np.sin(radians)
    np.testing.assert_allclose(middles[single], expected[single], atol=5e-3)


def test_head_and_shoulders_dominate_from_above_and_legs_from_the_ground():
    parts, _ = build_body(PERSON, STANDING)
    middle = parts.origin[:, 2] + parts.axes[:, 2, 2] * parts.length / 2
    upper, legs = {}, {}
    for elevation in (5, 75):
        radians = np.radians(elevation)
        forward = np.array([0, np.cos(radians), -np.sin(radians)])
        eye = (np.array([0, 0, 0.9]) - 15 * forward).astype(np.float32)
        axis = np.linspace(-0.08, 0.08, 120, dtype=np.float32)
        depth, part = first_hits(parts, eye, look_along(forward), axis, axis)
        visible = middle[part[np.isfinite(depth)]]
        upper[elevation] = np.mean(visible > 0.75 * PERSON.height)
        legs[elevation] = np.mean(visible < 0.45 * PERSON.height)
    assert upper[75] > 2 * upper[5]
    assert upper[5] < 0.5 * legs[5]
    assert upper[75] > 1.2 * legs[75]


@pytest.mark.parametrize(("view", "low", "high"), [("ground", 0, 15), ("aerial", 45, 80)])
def test_cameras_look_down_by_the_angles_of_their_view(view, low, high):
    angles = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shot = sample_shot(rng, sample_camera(rng, view), 1.7)
        angles.append(np.degrees(np.arcsin(-shot.basis[2, 2])))
        np.testing.assert_allclose(shot.basis @ shot.basis.T, np.eye(3), atol=1e-5)
    assert low - 1e-3 <= min(angles) < low + 0.3 * (high - low)
    assert high - 0.3 * (high - low) < max(angles) <= high + 1e-3


def test_a_wearable_camera_hangs_at_eye_height():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        assert 1.5 <= sample_shot(rng, sample_camera(rng, "wearable"), 1.7).eye[2] <= 1.75


def test_aerial_boxes_are_squatter_than_ground_boxes():
    def aspects(view):
        for seed in range(40):
            rng = np.random.default_rng(seed)
            shot = sample_shot(rng, sample_camera(rng, view), PERSON.height)
            left, bottom, right, top = body_box(PERSON, sample_pose(rng), shot.eye, shot.basis)
            yield (top - bottom) / (right - left)

    assert np.median(list(aspects("ground"))) > 1.3 * np.median(list(aspects("aerial")))


@pytest.mark.parametrize("view", VIEWS)
def test_clothing_colour_is_seen_from_every_view(view):
    """Over headings and cameras, the pictures of a person in red are redder than of the same one in blue."""
    difference = []
    for seed in range(12):
        camera = sample_camera(np.random.default_rng(seed), view)
        red, blue = (
            render(replace(PERSON, top_colour=colour), camera, (64, 32), np.random.default_rng(seed))
            for colour in ("red", "blue")
        )
        difference.append((red.astype(float) - blue).mean(axis=(0, 1)))
    red, _, blue = np.mean(difference, axis=0)
    assert red > 5
    assert blue < -5


@pytest.mark.parametrize("pattern", ["hoops", "stripes", "checks", "yoke", "sleeves"])
@pytest.mark.parametrize("view", ["aerial", "ground"])
def test_patterns_change_the_picture_in_both_domains(pattern, view):
    camera = sample_camera(np.random.default_rng(3), view)
    plain, patterned = (
        render(replace(PERSON, top_pattern=name), camera, (64, 32), np.random.default_rng(0)).astype(float)
        for name in ("plain", pattern)
    )
    changed = np.abs(plain - patterned).max(axis=-1) > 40
    assert 0.02 < changed.mean() < 0.6


@pytest.mark.parametrize("view", VIEWS)
def test_a_picture_depends_on_its_generator_alone(view):
    camera = sample_camera(np.random.default_rng(0), view)
    first, again, other = (render_jpeg(PERSON, camera, (48, 24), np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("size", [(16, 16), (64, 32), (96, 40)])
def test_pictures_have_the_size_asked_for(size):
    camera = sample_camera(np.random.default_rng(0), "aerial")
    picture = render(PERSON, camera, size, np.random.default_rng(0))
    assert picture.shape == (*size, 3)
    assert picture.dtype == np.uint8


def test_night_is_darker_than_day():
    camera = sample_camera(np.random.default_rng(0), "ground")
    day, night = (
        render(PERSON, c, (64, 32), np.random.default_rng(0)).mean() for c in (camera, at_night(camera))
    )
    assert night < 0.85 * day


def test_people_are_described_by_88_attributes_of_one_or_two():
    people = [sample_person(np.random.default_rng(seed)) for seed in range(300)]
    assert len(ATTRIBUTE_NAMES) == len(set(ATTRIBUTE_NAMES)) == 88
    values = np.array([list(attributes_of(person).values()) for person in people])
    assert set(np.unique(values)) == {1, 2}
    assert (values == 2).any(axis=0).all(), "every attribute occurs"
    for person in people:
        described = attributes_of(person)
        assert tuple(described) == ATTRIBUTE_NAMES
        assert described[f"top_colour_{person.top_colour}"] == 2
        assert sum(described[f"top_colour_{name}"] for name in TOP) == len(TOP) + 1
        assert (described[f"hat_colour_{person.hat_colour}"] == 2) == (person.hat != "none")


def test_people_can_be_confused_but_hardly_two_are_the_same():
    people = [sample_person(np.random.default_rng(seed)) for seed in range(300)]
    looks = [(p.top, p.top_colour, p.bottom_colour) for p in people]
    assert len(set(looks)) < 0.75 * len(people), "many share the main colours"
    assert len({tuple(attributes_of(p).values()) for p in people}) > 0.98 * len(people)
    assert all(p.top_colour != p.second_colour for p in people)
