"""From a person and a camera to one picture: pose, viewpoint, visible surface, cloth, light."""

from typing import NamedTuple

import numpy as np

from fastreid.rendered.body import (
    CHECKS,
    FACE,
    HOOPS,
    LOGO,
    STRIPES,
    YOKE,
    Cloth,
    build_body,
    sample_pose,
)
from fastreid.rendered.camera import Camera, Shot, sample_shot
from fastreid.rendered.nuisance import develop, encode_jpeg, occlude
from fastreid.rendered.person import Person, sample_person
from fastreid.rendered.raycast import Parts, dot, first_hits, in_shadow, perspective_boxes, surface
from fastreid.rendered.surroundings import surroundings

PASSER_BY = 0.08  # share of the pictures with a second person in the background
CUT_LEGS = 0.06  # share of the detector's boxes that miss the legs
ASPECT = (0.8, 1.3)  # a box may be this much narrower or wider than the picture that it is stretched to
PERIOD = 0.13  # metres, of stripes and checks


class Window(NamedTuple):
    """The part of the image plane that a picture shows, in x = X/Z and y = Y/Z (up)."""

    left: float
    bottom: float
    right: float
    top: float


def crop_window(box: np.ndarray, aspect: float, view: str, rng: np.random.Generator) -> Window:
    """A detector's box around a person: `box` (4,) with margins, jitter and a limited width-to-height ratio.

    `aspect` is width over height of the picture that the box will be stretched to.
    """
    left, bottom, right, top = (float(v) for v in box)
    height = top - bottom
    left, right = left - height * rng.uniform(0.0, 0.08), right + height * rng.uniform(0.0, 0.08)
    top += height * rng.uniform(0.0, 0.08)
    cut = view != "aerial" and rng.random() < CUT_LEGS
    bottom += height * (rng.uniform(0.12, 0.3) if cut else rng.uniform(-0.08, 0.0))
    width, height = right - left, top - bottom
    wider = max(0.0, ASPECT[0] * aspect * height - width) / 2
    taller = max(0.0, width / (ASPECT[1] * aspect) - height) / 2
    return Window(left - wider, bottom - taller, right + wider, top + taller)


def cloth_colour(cloth: Cloth, index: np.ndarray, local: np.ndarray) -> np.ndarray:
    """(N, 3) colour of the cloth at part-space points `local` (N, 3) of the parts `index` (N,)."""
    x, y, z = (local * cloth.scale[index]).T
    z = z + cloth.height[index]
    pattern = cloth.pattern[index]
    hoop, stripe = np.mod(z, PERIOD) < PERIOD / 2, np.mod(x, PERIOD) < PERIOD / 2
    front = (y > 0) & (np.abs(x) < 0.075) & (np.abs(z + 0.15) < 0.075)
    back = (y < 0) & (np.abs(x) < 0.12) & (np.abs(z + 0.17) < 0.13)
    eyes = (y > 0) & (np.abs(np.abs(x) - 0.03) < 0.013) & (np.abs(local[:, 2] - 0.07) < 0.009)
    second = (
        ((pattern == HOOPS) & hoop)
        | ((pattern == STRIPES) & stripe)
        | ((pattern == CHECKS) & (hoop ^ stripe))
        | ((pattern == LOGO) & (front | back))
        | ((pattern == YOKE) & (z > -0.12))
        | ((pattern == FACE) & eyes)
    )
    folds = 1 + 0.05 * np.sin(31 * z + 9 * x) * np.sin(23 * x + 17 * y)
    return cloth.colours[index, second.astype(np.intp)] * folds[:, None]


def _join(bodies: list[tuple[Parts, Cloth]]) -> tuple[Parts, Cloth]:
    if len(bodies) == 1:
        return bodies[0]
    parts = Parts(*(np.concatenate(arrays) for arrays in zip(*(b[0] for b in bodies), strict=True)))
    return parts, Cloth(*(np.concatenate(arrays) for arrays in zip(*(b[1] for b in bodies), strict=True)))


def light_scene(
    parts: Parts, cloth: Cloth, camera: Camera, shot: Shot, window: Window, size: tuple[int, int]
) -> np.ndarray:
    """Radiance (h, w, 3) float32 of the scene through `window`; `size` = (h, w)."""
    height, width = size
    xs = np.linspace(window.left, window.right, 2 * width + 1, dtype=np.float32)[1::2]
    ys = np.linspace(window.top, window.bottom, 2 * height + 1, dtype=np.float32)[1::2]
    rays = shot.basis[2] + xs[None, :, None] * shot.basis[0] + ys[:, None, None] * shot.basis[1]
    rays = rays.reshape(-1, 3)
    depth, colour, normal = surroundings(camera, shot, rays)
    body_depth, part = first_hits(parts, shot.eye, shot.basis, xs, ys)
    body = np.flatnonzero(body_depth < depth)
    depth[body] = body_depth[body]
    points = shot.eye + depth[:, None] * rays
    local, normal[body] = surface(parts, part[body], points[body])
    colour[body] = cloth_colour(cloth, part[body], local)

    facing = np.maximum(dot(normal, shot.sun[2]), 0)
    facing[in_shadow(parts, points + np.float32(0.012) * normal, shot.sun)] = 0
    open_sky = 0.8 + 0.2 * normal[:, 2]
    near_feet = np.exp(-6 * (points[:, 0] ** 2 + points[:, 1] ** 2) - 10 * np.abs(points[:, 2]))
    open_sky *= 1 - 0.45 * near_feet
    light = facing[:, None] * np.float32(camera.sun) + open_sky[:, None] * np.float32(camera.sky)
    light[~normal.any(axis=-1)] = 1  # the sky shines itself
    return (colour * light).reshape(height, width, 3)


def render(person: Person, camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """One picture of `person` by `camera`: uint8 (H, W, 3) RGB, `size` = (H, W) pixels.

    Everything that varies between pictures of the same person and camera comes from `rng`.
    """
    shot = sample_shot(rng, camera, person.height)
    bodies = [build_body(person, sample_pose(rng))]
    box = perspective_boxes(bodies[0][0], shot.eye, shot.basis)
    box = np.concatenate([box[:, :2].min(axis=0), box[:, 2:].max(axis=0)])
    window = crop_window(box, size[1] / size[0], camera.view, rng)
    if rng.random() < PASSER_BY:
        place = (float(rng.choice([-1, 1]) * rng.uniform(0.5, 0.9)), float(rng.uniform(0.3, 1.2)))
        bodies.append(build_body(sample_person(rng), sample_pose(rng), place))
    parts, cloth = _join(bodies)
    sensor = tuple(max(8, round(side * camera.detail)) for side in size)
    image = light_scene(parts, cloth, camera, shot, window, sensor)
    return develop(occlude(image, rng), camera, shot.exposure, size, rng)


def render_jpeg(person: Person, camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    """`render` as the bytes of a JPEG file."""
    return encode_jpeg(render(person, camera, size, rng), rng)
