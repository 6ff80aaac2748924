"""A walking person as round cones with cloth on them.

The person's own frame has x to the right, y forward and z up, in metres, with the ground at z = 0.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastreid.rendered.person import ACCESSORY, BOTTOM, HAIR, SHOE, SKIN, TOP, Person
from fastreid.rendered.raycast import Parts

PLAIN, HOOPS, STRIPES, CHECKS, LOGO, YOKE, FACE = range(7)
_PATTERN_CODE = {"hoops": HOOPS, "stripes": STRIPES, "checks": CHECKS, "logo": LOGO, "yoke": YOKE}
Point = tuple[float, float, float]


class Cloth(NamedTuple):
    """The cloth or skin of each of the P parts."""

    colours: np.ndarray  # (P, 2, 3) the two colours of the pattern, 0-1
    pattern: np.ndarray  # (P,) one of the pattern codes
    scale: np.ndarray  # (P, 3) part space -> cloth coordinates in metres
    height: np.ndarray  # (P,) added to the cloth's z; z = 0 is the shoulder line


@dataclass(frozen=True, slots=True)
class Pose:
    """A moment of a walk. Angles in radians."""

    heading: float  # 0 faces away from the camera, pi towards it
    phase: float  # of the gait cycle
    swing: float  # amplitude of the thighs
    lean: float  # of the trunk, forward
    elbows: tuple[float, float]  # bend of the left and right elbow
    spread: float  # arms away from the trunk


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose: mostly walking, sometimes standing, now and then with one forearm raised."""
    standing = rng.random() < 0.2
    elbows = [float(rng.uniform(0.1, 0.6)) for _ in range(2)]
    if rng.random() < 0.2:
        elbows[int(rng.integers(2))] = float(rng.uniform(1.4, 2.1))
    return Pose(
        heading=float(rng.uniform(0, 2 * np.pi)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        swing=float(rng.uniform(0.02, 0.08) if standing else rng.uniform(0.28, 0.52)),
        lean=float(rng.uniform(-0.02, 0.12)),
        elbows=(elbows[0], elbows[1]),
        spread=float(rng.uniform(0.05, 0.2)),
    )


class _Tailor:
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


def build_body(person: Person, pose: Pose, place: tuple[float, float] = (0.0, 0.0)) -> tuple[Parts, Cloth]:
    """The parts of `person` in `pose`, standing at `place` (x, y) in the world, and what covers them."""
    tailor = _Tailor()
    drop = _add_legs(tailor, person, pose)
    shoulder = (0.0, 0.235 * person.height * np.sin(pose.lean), 0.815 * person.height - drop)
    _add_trunk(tailor, person, shoulder, 0.53 * person.height - drop)
    hands = _add_arms(tailor, person, pose, shoulder)
    _add_head(tailor, person, shoulder)
    _add_bag(tailor, person, shoulder, hands)
    return tailor.finish(pose.heading, place)


def _along(start: Point, angle: float, reach: float, outward: float = 0.0) -> Point:
    """The far end of a limb that hangs down from `start`, swung forward by `angle`."""
    return (
        start[0] + reach * np.sin(outward),
        start[1] + reach * np.cos(outward) * np.sin(angle),
        start[2] - reach * np.cos(outward) * np.cos(angle),
    )


def _shift(point: Point, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Point:
    return (point[0] + x, point[1] + y, point[2] + z)


def _add_legs(tailor: _Tailor, person: Person, pose: Pose) -> float:
    """Legs, shoes and what covers them; returns how far the walk lowers the hips."""
    h, g = person.height, person.girth
    hips, knees, ankles, tilts = [], [], [], []
    for side, phase in ((-1, pose.phase), (1, pose.phase + np.pi)):
        thigh = pose.swing * np.sin(phase)
        shin = thigh - 0.08 - 1.3 * pose.swing * max(0.0, np.cos(phase))
        hips.append((side * 0.05 * h * g**0.5, 0.0, 0.53 * h))
        knees.append(_along(hips[-1], thigh, 0.245 * h))
        ankles.append(_along(knees[-1], shin, 0.24 * h))
        tilts.append(0.5 * min(0.0, shin + 0.1))
    drop = min(ankle[2] for ankle in ankles) - 0.045 * h
    hips, knees, ankles = ([_shift(p, z=-drop) for p in row] for row in (hips, knees, ankles))
    skin, cloth, shoe = SKIN[person.skin], BOTTOM[person.bottom_colour], SHOE[person.shoe_colour]
    thigh_colour = skin if person.bottom == "skirt" else cloth
    shin_colour = cloth if person.bottom == "trousers" else skin
    wide = 1.12 if person.bottom == "shorts" else 1.0
    cuff = 1.2 if person.bottom == "trousers" else 1.0
    for hip, knee, ankle, tilt in zip(hips, knees, ankles, tilts, strict=True):
        tailor.add(hip, knee, (0.052 * h * g, 0.034 * h * g * wide), thigh_colour)
        tailor.add(knee, ankle, (0.031 * h * g, 0.021 * h * cuff), shin_colour)
        tip = _shift(ankle, y=0.085 * h, z=-0.022 * h + 0.085 * h * tilt)
        tailor.add(_shift(ankle, y=-0.012 * h, z=-0.022 * h), tip, (0.024 * h, 0.019 * h), shoe)
    if person.bottom == "skirt":
        waist, hem = (0, 0, 0.58 * h - drop), (0.0, (knees[0][1] + knees[1][1]) / 2, 0.3 * h)
        radii = (0.066 * h * g, 0.1 * h * g + 0.25 * abs(knees[0][1] - knees[1][1]))
        tailor.add(waist, hem, radii, cloth, (1, 0.9, 0.3))
    return drop


def _top_pattern(person: Person) -> tuple[int, tuple] | None:
    code = _PATTERN_CODE.get(person.top_pattern)
    return None if code is None else (code, TOP[person.second_colour])


def _add_trunk(tailor: _Tailor, person: Person, shoulder: Point, hip_z: float) -> None:
    """Pelvis, waist to chest, shoulders, and the skirts of a coat."""
    h, g = person.height, person.girth
    top, bottom, pattern = TOP[person.top_colour], BOTTOM[person.bottom_colour], _top_pattern(person)
    low, high = (0, 0, hip_z + 0.01 * h), (0, 0, hip_z + 0.05 * h)
    tailor.add(low, high, (0.088 * h * g, 0.08 * h * g), bottom, (1, 0.72, 1))
    thick = 1.08 if person.top == "coat" else 1.0
    waist, chest = (0.0, 0.2 * shoulder[1], hip_z + 0.06 * h), _shift(shoulder, z=-0.075 * h)
    radii = (0.082 * h * g**1.3 * thick, 0.094 * h * g * thick)
    to_shoulder = waist[2] - shoulder[2]
    tailor.add(waist, chest, radii, top, (1.05, 0.72, 1), pattern, (1, to_shoulder))
    flat = (1.72 * g**0.7 * thick, 1.0 * g**0.7, 0.85)
    tailor.add_ball(_shift(shoulder, z=-0.03 * h), 0.062 * h, top, flat, pattern, -0.03 * h)
    if person.top == "coat":
        hem, radii = (0.0, 0.0, hip_z - 0.14 * h), (0.088 * h * g, 0.112 * h * g)
        tailor.add(waist, hem, radii, top, (1, 0.82, 0.3), pattern, (-1, to_shoulder))


def _add_arms(tailor: _Tailor, person: Person, pose: Pose, shoulder: Point) -> list[Point]:
    """Arms that swing against the legs; returns the two hands."""
    h, g = person.height, person.girth
    top, skin, pattern = TOP[person.top_colour], SKIN[person.skin], _top_pattern(person)
    if person.top_pattern == "sleeves":
        top = TOP[person.second_colour]
    if pattern and pattern[0] == LOGO:
        pattern = None
    bare = person.top == "short_sleeve"
    thick = 1.15 if person.top == "coat" else 1.0
    hands = []
    for side, phase, bend in zip((-1, 1), (pose.phase + np.pi, pose.phase), pose.elbows, strict=True):
        swing = 0.8 * pose.swing * np.sin(phase)
        joint = _shift(shoulder, x=side * 0.094 * h * g**0.8, z=-0.034 * h)
        elbow = _along(joint, swing, 0.165 * h, side * pose.spread)
        wrist = _along(elbow, swing + bend, 0.14 * h, side * 0.4 * pose.spread)
        hand = _along(wrist, swing + bend, 0.04 * h)
        upper, fore = (
            (0.036 * h * g * thick, 0.028 * h * g * thick),
            (0.024 * h * g * thick, 0.019 * h * thick),
        )
        tailor.add(joint, elbow, upper, top, pattern=pattern, cloth_z=(-1, 0))
        sleeve = None if bare else pattern
        tailor.add(elbow, wrist, fore, skin if bare else top, pattern=sleeve, cloth_z=(-1, -0.165 * h))
        tailor.add(wrist, hand, (0.016 * h, 0.018 * h), skin)
        hands.append(hand)
    return hands


def _add_head(tailor: _Tailor, person: Person, shoulder: Point) -> None:
    """Neck, face, hair and hat."""
    h = person.height
    skin, hair, hat = SKIN[person.skin], HAIR[person.hair_colour], ACCESSORY[person.hat_colour]
    jaw, crown = _shift(shoulder, y=0.012 * h, z=0.075 * h), _shift(shoulder, y=0.004 * h, z=0.125 * h)
    tailor.add(_shift(shoulder, z=0.005 * h), jaw, (0.04 * h, 0.03 * h), skin)
    tailor.add(jaw, crown, (0.037 * h, 0.05 * h), skin, (0.92, 1.08, 1), (FACE, (40, 28, 26)))
    cap = _shift(crown, y=-0.012 * h, z=0.007 * h)
    if person.hair_style != "bald":
        tailor.add_ball(cap, 0.055 * h, hair, (0.96, 1.06, 0.98))
        nape = _shift(jaw, y=-0.022 * h, z=0.01 * h)
        tailor.add(_shift(cap, y=-0.008 * h), nape, (0.048 * h, 0.036 * h), hair)
    if person.hair_style == "long":
        tip = _shift(shoulder, y=-0.05 * h, z=-0.06 * h)
        tailor.add(_shift(cap, y=-0.012 * h), tip, (0.05 * h, 0.048 * h), hair, (1.2, 0.7, 1))
    elif person.hair_style == "ponytail":
        knot, tip = _shift(cap, y=-0.062 * h, z=-0.005 * h), _shift(shoulder, y=-0.085 * h)
        tailor.add(knot, tip, (0.022 * h, 0.013 * h), hair)
    elif person.hair_style == "bun":
        tailor.add_ball(_shift(cap, y=-0.035 * h, z=0.045 * h), 0.03 * h, hair)
    if person.hat != "none":
        dome = _shift(crown, y=-0.005 * h, z=0.016 * h)
        tailor.add_ball(dome, 0.059 * h, hat, (1, 1.1, 0.95 if person.hat == "beanie" else 0.8))
        if person.hat == "brim":
            tailor.add_ball(dome, 0.115 * h, hat, (1, 1.05, 0.1))
        elif person.hat == "cap":
            tailor.add_ball(_shift(dome, y=0.06 * h), 0.05 * h, hat, (1, 1.1, 0.16))


def _add_bag(tailor: _Tailor, person: Person, shoulder: Point, hands: list[Point]) -> None:
    """A backpack with straps, a bag on a strap across the chest, or one in the hand."""
    h, g, bag = person.height, person.girth, ACCESSORY[person.bag_colour]
    if person.bag == "backpack":
        low = _shift(shoulder, y=-0.115 * h * g, z=-0.2 * h)
        high = _shift(shoulder, y=-0.11 * h * g, z=-0.05 * h)
        tailor.add(low, high, (0.085 * h, 0.075 * h), bag, (1.05, 0.72, 1))
        for side in (-1, 1):
            x = side * 0.06 * h
            rear, peak = _shift(shoulder, x, -0.07 * h * g, -0.02 * h), _shift(shoulder, x, z=0.018 * h)
            collar = _shift(shoulder, x, 0.052 * h * g, -0.015 * h)
            front = _shift(shoulder, x, 0.068 * h * g, -0.12 * h)
            tailor.add_strap([rear, peak, collar, front], 0.012 * h, bag)
    elif person.bag == "shoulder_bag":
        hip = _shift(shoulder, x=0.125 * h * g, y=-0.02 * h, z=-0.29 * h)
        tailor.add(hip, _shift(hip, z=0.06 * h), (0.06 * h, 0.055 * h), bag, (0.55, 1.3, 1))
        peak = _shift(shoulder, x=-0.075 * h, z=0.022 * h)
        for side in (-1, 1):
            high = _shift(shoulder, -0.055 * h, side * 0.068 * h * g, -0.04 * h)
            low = _shift(shoulder, 0.065 * h, side * 0.066 * h * g, -0.19 * h)
            tailor.add_strap([peak, high, low, _shift(hip, z=0.07 * h)], 0.011 * h, bag)
    elif person.bag == "handbag":
        low, high = _shift(hands[1], z=-0.15 * h), _shift(hands[1], z=-0.09 * h)
        tailor.add(low, high, (0.065 * h, 0.05 * h), bag, (0.5, 1.25, 1))
