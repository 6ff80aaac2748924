"""From a person and a camera to one picture: pose, viewpoint, visible surface, cloth, light."""

from typing import NamedTuple

import numpy as np

from fastreid.rendered.body import build_body, sample_pose
from fastreid.rendered.camera import Camera, Detector, Shot, sample_shot
from fastreid.rendered.cloth import Cloth, cloth_colour
from fastreid.rendered.nuisance import develop, encode_jpeg, occlude
from fastreid.rendered.person import Person, sample_person
from fastreid.rendered.raycast import Parts, dot, first_hits, in_shadow, perspective_boxes, surface
from fastreid.rendered.styles import sample_styled_person
from fastreid.rendered.surroundings import surroundings

PASSER_BY = 0.08  # share of the pictures with a second person in the background
NARROWEST = 0.8  # how much narrower a box may be than the picture that it is stretched to


class Window(NamedTuple):
    """The part of the image plane that a picture shows, in x = X/Z and y = Y/Z (up)."""

    left: float
    bottom: float
    right: float
    top: float


def box_around(
    parts: Parts, height: float, camera: Camera, shot: Shot, rng: np.random.Generator
) -> np.ndarray:
    """(4,) the box x0, y0, x1, y1 of a person's `parts` that the camera's detector sees."""
    boxes, (least, most) = perspective_boxes(parts, shot.eye, shot.basis), camera.detector.lowest
    if most > 0:
        middles = parts.origin[:, 2] + parts.axes[:, 2, 2] * parts.length / 2
        boxes = boxes[middles > height * rng.uniform(least, most)]
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def crop_window(box: np.ndarray, aspect: float, detector: Detector, rng: np.random.Generator) -> Window:
    """A detector's box around a person: `box` (4,) with margins, jitter and a limited width-to-height ratio.

    `aspect` is width over height of the picture that the box will be stretched to.
    """
    left, bottom, right, top = (float(v) for v in box)
    height = top - bottom
    left, right = left - height * rng.uniform(0.0, 0.08), right + height * rng.uniform(0.0, 0.08)
    top += height * rng.uniform(0.0, 0.08)
    cut = detector.cut_legs > 0 and rng.random() < detector.cut_legs
    bottom += height * (rng.uniform(0.12, 0.3) if cut else rng.uniform(-0.08, 0.0))
    width, height = right - left, top - bottom
    wider = max(0.0, NARROWEST * aspect * height - width) / 2
    taller = max(0.0, width / (detector.widest * aspect) - height) / 2
    return Window(left - wider, bottom - taller, right + wider, top + taller)


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
    window = crop_window(
        box_around(bodies[0][0], person.height, camera, shot, rng), size[1] / size[0], camera.detector, rng
    )
    if rng.random() < PASSER_BY:
        place = (float(rng.choice([-1, 1]) * rng.uniform(0.5, 0.9)), float(rng.uniform(0.3, 1.2)))
        passer_by = sample_styled_person(rng) if person.details else sample_person(rng)
        bodies.append(build_body(passer_by, sample_pose(rng), place))
    parts, cloth = _join(bodies)
    sensor = tuple(max(8, round(side * camera.detail)) for side in size)
    image = light_scene(parts, cloth, camera, shot, window, sensor)
    return develop(occlude(image, rng), camera, shot.exposure, size, rng)


def render_jpeg(person: Person, camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    """`render` as the bytes of a JPEG file."""
    return encode_jpeg(render(person, camera, size, rng), rng)
