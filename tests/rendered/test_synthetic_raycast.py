"""Ray casting against closed forms and against a brute-force hull of spheres."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastreid.rendered.camera import look_along
from fastreid.rendered.raycast import Parts, first_hits, in_shadow, perspective_boxes, surface

GRID = 161


def one_part(origin=(0, 0, 0), axes=None, radii=(1.0, 1.0), length=0.0) -> Parts:
    axes = np.eye(3) if axes is None else np.asarray(axes)
    arrays = (
        np.array([origin]),
        axes[None],
        np.linalg.inv(axes)[None],
        np.array([radii]),
        np.array([length]),
    )
    return Parts(*(array.astype(np.float32) for array in arrays))


def camera_at(eye) -> tuple[np.ndarray, np.ndarray]:
    eye = np.array(eye, float)
    return eye.astype(np.float32), look_along(-eye / np.linalg.norm(eye), roll=0.3)


def grid_rays(eye, basis, reach):
    xs = np.linspace(-reach, reach, GRID, dtype=np.float32)
    ys = xs[::-1].copy()
    rays = basis[2] + xs[None, :, None] * basis[0] + ys[:, None, None] * basis[1]
    return xs, ys, rays.reshape(-1, 3).astype(float)


@pytest.mark.parametrize("centre", [(0, 0, 0), (0.7, -0.4, 0.5)])
def test_a_sphere_covers_the_cone_of_its_tangents(centre):
    """A ray meets a sphere exactly when its angle to the centre is below asin(radius / distance)."""
    eye, basis = camera_at((1.0, -6.0, 3.0))
    xs, ys, rays = grid_rays(eye, basis, 0.4)
    depth, _ = first_hits(one_part(centre), eye, basis, xs, ys)

    towards = np.array(centre) - eye
    distance = np.linalg.norm(towards)
    cosine = rays @ towards / np.linalg.norm(rays, axis=1) / distance
    angle, limit = np.arccos(cosine), np.arcsin(1 / distance)
    clear = np.abs(angle - limit) > 1e-4
    np.testing.assert_array_equal(np.isfinite(depth)[clear], (angle < limit)[clear])

    hit = np.isfinite(depth) & clear
    along = distance * cosine - np.sqrt(np.maximum(1 - distance**2 * (1 - cosine**2), 0))
    expected = along / np.linalg.norm(rays, axis=1)
    np.testing.assert_allclose(depth[hit], expected[hit], rtol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    radius=st.floats(0.2, 1.0),
    ratio=st.floats(0.1, 2.0),
    length=st.floats(1.3, 4.0),
    squeeze=st.tuples(st.floats(0.4, 1.6), st.floats(0.4, 1.6), st.floats(0.4, 1.0)),
    azimuth=st.floats(0, 6.28),
    height=st.floats(-4, 8),
)
def test_a_part_is_the_hull_of_its_two_spheres(radius, ratio, length, squeeze, azimuth, height):
    """The convex hull of two spheres is the union of the spheres between them: intersect many of those."""
    other = min(radius * ratio, radius + 0.9 * length)
    part = one_part((0, 0, -1), np.diag(squeeze), (radius, other), length)
    eye, basis = camera_at((9 * np.cos(azimuth), 9 * np.sin(azimuth), height))
    xs = np.linspace(-0.4, 0.4, 31, dtype=np.float32)
    depth, _ = first_hits(part, eye, basis, xs, xs)

    rays = (basis[2] + xs[None, :, None] * basis[0] + xs[:, None, None] * basis[1]).reshape(-1, 3)
    start, direction = (eye - part.origin[0]) / squeeze, rays / np.array(squeeze)
    share = np.linspace(0, 1, 1500)[:, None]
    sphere_radius = radius + share * (other - radius)
    w = start - share * np.array([0, 0, length])
    a, b = np.sum(direction**2, axis=1), w @ direction.T
    root = b**2 - a * (np.sum(w**2, axis=1, keepdims=True) - sphere_radius**2)
    expected = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf).min(axis=0)
    margin = np.abs(root).min(axis=0) > 2e-2  # grazing rays may go either way
    np.testing.assert_array_equal(np.isfinite(depth)[margin], np.isfinite(expected)[margin])
    both = margin & np.isfinite(expected)
    np.testing.assert_allclose(depth[both], expected[both], atol=5e-3)


def test_the_box_of_a_part_is_as_tight_as_its_picture():
    tilt = np.array([[0.8, 0.1, 0.3], [0, 1.1, -0.4], [0.2, 0, 0.9]])
    part = one_part((0.2, 0.1, -0.3), tilt, (0.5, 0.25), 1.2)
    eye, basis = camera_at((2.0, -5.0, 2.5))
    xs, ys, _ = grid_rays(eye, basis, 0.5)
    seen = np.isfinite(first_hits(part, eye, basis, xs, ys)[0]).reshape(GRID, GRID)
    left, bottom, right, top = perspective_boxes(part, eye, basis)[0]
    pixel = xs[1] - xs[0]
    for low, high, positions, axis in ((left, right, xs, 0), (bottom, top, ys, 1)):
        covered = positions[seen.any(axis=axis)]
        assert low <= covered.min() <= low + 1.5 * pixel
        assert high - 1.5 * pixel <= covered.max() <= high


def test_the_nearer_part_hides_the_farther_one():
    near, far = one_part((0, -2, 0), radii=(0.5, 0.5)), one_part((0, 2, 0))
    parts = Parts(*(np.concatenate(arrays) for arrays in zip(far, near, strict=True)))
    eye, basis = np.float32([0, -8, 0]), look_along(np.array([0.0, 1.0, 0.0]))
    centre = np.zeros(1, np.float32)
    depth, index = first_hits(parts, eye, basis, centre, centre)
    assert index[0] == 1
    np.testing.assert_allclose(depth, [5.5], rtol=1e-5)


def test_normals_of_a_slanted_ellipsoid_are_the_gradient_of_its_equation():
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(3, 3)) + 2 * np.eye(3)
    part = one_part((1, 2, 3), axes, (0.7, 0.7))
    unit = rng.normal(size=(50, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    points = (0.7 * unit @ axes.T + [1, 2, 3]).astype(np.float32)
    _, normal = surface(part, np.zeros(50, int), points)
    inverse = np.linalg.inv(axes)
    gradient = (points - [1, 2, 3]) @ inverse.T @ inverse
    np.testing.assert_allclose(normal, gradient / np.linalg.norm(gradient, axis=1, keepdims=True), atol=1e-4)


def test_the_shadow_of_a_sphere_is_a_disc_across_the_light():
    part = one_part((0, 0, 5))
    light = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
    points = np.random.default_rng(1).uniform(-6, 6, (4000, 3)).astype(np.float32)
    points[:, 2] = 0
    dark = in_shadow(part, points, look_along(light))
    offset = np.array([0, 0, 5]) - points
    across = np.linalg.norm(offset - (offset @ light)[:, None] * light, axis=1)
    clear = np.abs(across - 1) > 1e-3
    np.testing.assert_array_equal(dark[clear], (across < 1)[clear])
    assert dark.any()


def test_nothing_behind_a_point_shades_it():
    above_the_sphere = np.float32([[0, 0, 7]])
    assert not in_shadow(one_part((0, 0, 5)), above_the_sphere, look_along(np.array([0.1, 0.0, 1.0]))).any()
