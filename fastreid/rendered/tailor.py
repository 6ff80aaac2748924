"""Round cones with cloth on them, and what puts them together to a body.

The person's own frame has x to the right, y forward and z up, in metres, with the ground at z = 0.
"""

import itertools

import numpy as np

from fastreid.rendered.cloth import PLAIN, Cloth
from fastreid.rendered.raycast import Parts

Point = tuple[float, float, float]


class Tailor:
    """Collects parts; positions are in the person's frame, in metres."""

    def __init__(self) -> None:
        self.rows: list[tuple] = []
        self.cloth: list[tuple] = []

    def add(
        self,
        start: Point,
        end: Point,
        radii: tuple[float, float],
        colour: tuple,
        flat: tuple[float, float, float] = (1, 1, 1),
        pattern: tuple[int, tuple] | None = None,
        cloth_z: tuple[float, float] = (1.0, 0.0),
    ) -> None:
        """A round cone from `start` to `end`, squeezed by `flat` along its x (sideways), y and z axes.

        `pattern` is a code and the second colour; `cloth_z` maps part-space z to the cloth's z.
        """
        code, second = pattern or (PLAIN, colour)
        self.rows.append((*start, *end, *radii, *flat))
        self.cloth.append((colour, second, code, cloth_z))

    def add_ball(
        self,
        centre: Point,
        radius: float,
        colour: tuple,
        flat: tuple[float, float, float] = (1, 1, 1),
        pattern: tuple[int, tuple] | None = None,
        cloth_z: float = 0.0,
    ) -> None:
        """An ellipsoid: a sphere squeezed by `flat`."""
        self.add(centre, centre, (radius, radius), colour, flat, pattern, (1.0, cloth_z))

    def add_strap(self, points: list[Point], radius: float, colour: tuple) -> None:
        """A band along `points`."""
        for start, end in itertools.pairwise(points):
            self.add(start, end, (radius, radius), colour)

    def finish(self, heading: float, place: tuple[float, float]) -> tuple[Parts, Cloth]:
        """All parts turned by `heading` about z and moved to `place` on the ground."""
        rows = np.array(self.rows, np.float32)
        start, bone, flat = rows[:, :3], rows[:, 3:6] - rows[:, :3], rows[:, 8:]
        reach = np.sqrt(np.sum(bone * bone, axis=1, keepdims=True))
        z = np.where(reach > 0, bone / np.maximum(reach, 1e-9), np.float32([0, 0, 1]))
        x = np.float32([1, 0, 0]) - z[:, :1] * z
        x /= np.sqrt(np.sum(x * x, axis=1, keepdims=True))
        frame = np.stack([x, np.cross(z, x), z], axis=-1)
        cos, sin = np.float32(np.cos(heading)), np.float32(np.sin(heading))
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
        frame = np.sum(turn[None, :, :, None] * frame[:, None], axis=2)
        origin = np.sum(turn * start[:, None, :], axis=-1) + np.float32([*place, 0])
        parts = Parts(
            origin.astype(np.float32),
            frame * flat[:, None, :],
            np.swapaxes(frame, 1, 2) / flat[:, :, None],
            rows[:, 6:8],
            reach[:, 0] / flat[:, 2],
        )
        colours = np.array([row[:2] for row in self.cloth], np.float32) / 255
        to_cloth = np.array([row[3] for row in self.cloth], np.float32)
        scale = flat * np.stack([np.ones(len(flat)), np.ones(len(flat)), to_cloth[:, 0]], axis=-1)
        pattern = np.array([row[2] for row in self.cloth])
        return parts, Cloth(colours, pattern, scale.astype(np.float32), to_cloth[:, 1])


def along(start: Point, angle: float, reach: float, outward: float = 0.0) -> Point:
    """The far end of a limb that hangs down from `start`, swung forward by `angle`."""
    return (
        start[0] + reach * np.sin(outward),
        start[1] + reach * np.cos(outward) * np.sin(angle),
        start[2] - reach * np.cos(outward) * np.cos(angle),
    )


def shift(point: Point, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Point:
    return (point[0] + x, point[1] + y, point[2] + z)
