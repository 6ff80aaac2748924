"""A walking person as round cones with cloth on them.

The person's own frame has x to the right, y forward and z up, in metres, with the ground at z = 0.
"""

from dataclasses import dataclass

import numpy as np

from fastreid.rendered.cloth import CHECKS, FACE, HOOPS, LOGO, STRIPES, YOKE, Cloth
from fastreid.rendered.details import add_leg_details, add_trunk_details, crown_pattern, leg_pattern
from fastreid.rendered.person import ACCESSORY, BOTTOM, HAIR, SHOE, SKIN, TOP, Person
from fastreid.rendered.raycast import Parts
from fastreid.rendered.tailor import Point, Tailor, along, shift

_PATTERN_CODE = {"hoops": HOOPS, "stripes": STRIPES, "checks": CHECKS, "logo": LOGO, "yoke": YOKE}


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


def build_body(person: Person, pose: Pose, place: tuple[float, float] = (0.0, 0.0)) -> tuple[Parts, Cloth]:
    """The parts of `person` in `pose`, standing at `place` (x, y) in the world, and what covers them."""
    tailor = Tailor()
    drop = _add_legs(tailor, person, pose)
    shoulder = (0.0, 0.235 * person.height * np.sin(pose.lean), 0.815 * person.height - drop)
    _add_trunk(tailor, person, shoulder, 0.53 * person.height - drop)
    hands = _add_arms(tailor, person, pose, shoulder)
    if person.details:
        add_trunk_details(tailor, person, person.details, shoulder)
    _add_head(tailor, person, shoulder)
    _add_bag(tailor, person, shoulder, hands)
    return tailor.finish(pose.heading, place)


def _add_legs(tailor: Tailor, person: Person, pose: Pose) -> float:
    """Legs, shoes and what covers them; returns how far the walk lowers the hips."""
    h, g = person.height, person.girth
    hips, knees, ankles, tilts = [], [], [], []
    for side, phase in ((-1, pose.phase), (1, pose.phase + np.pi)):
        thigh = pose.swing * np.sin(phase)
        shin = thigh - 0.08 - 1.3 * pose.swing * max(0.0, np.cos(phase))
        hips.append((side * 0.05 * h * g**0.5, 0.0, 0.53 * h))
        knees.append(along(hips[-1], thigh, 0.245 * h))
        ankles.append(along(knees[-1], shin, 0.24 * h))
        tilts.append(0.5 * min(0.0, shin + 0.1))
    drop = min(ankle[2] for ankle in ankles) - 0.045 * h
    hips, knees, ankles = ([shift(p, z=-drop) for p in row] for row in (hips, knees, ankles))
    skin, cloth, shoe = SKIN[person.skin], BOTTOM[person.bottom_colour], SHOE[person.shoe_colour]
    thigh_colour = skin if person.bottom == "skirt" else cloth
    shin_colour = cloth if person.bottom == "trousers" else skin
    pattern = leg_pattern(person.details)
    thigh_pattern = None if person.bottom == "skirt" else pattern
    shin_pattern = pattern if person.bottom == "trousers" else None
    wide = 1.12 if person.bottom == "shorts" else 1.0
    cuff = 1.2 if person.bottom == "trousers" else 1.0
    for hip, knee, ankle, tilt in zip(hips, knees, ankles, tilts, strict=True):
        tailor.add(hip, knee, (0.052 * h * g, 0.034 * h * g * wide), thigh_colour, pattern=thigh_pattern)
        tailor.add(knee, ankle, (0.031 * h * g, 0.021 * h * cuff), shin_colour, pattern=shin_pattern)
        tip = shift(ankle, y=0.085 * h, z=-0.022 * h + 0.085 * h * tilt)
        tailor.add(shift(ankle, y=-0.012 * h, z=-0.022 * h), tip, (0.024 * h, 0.019 * h), shoe)
        if person.details:
            add_leg_details(tailor, person, person.details, knee, ankle, tip)
    if person.bottom == "skirt":
        waist, hem = (0, 0, 0.58 * h - drop), (0.0, (knees[0][1] + knees[1][1]) / 2, 0.3 * h)
        flare = 0.5 if person.details else 0.25  # enough for all of a step
        radii = (0.066 * h * g, 0.1 * h * g + flare * abs(knees[0][1] - knees[1][1]))
        tailor.add(waist, hem, radii, cloth, (1, 0.9, 0.3), pattern)
    return drop


def _top_pattern(person: Person) -> tuple[int, tuple] | None:
    code = _PATTERN_CODE.get(person.top_pattern)
    return None if code is None else (code, TOP[person.second_colour])


def _add_trunk(tailor: Tailor, person: Person, shoulder: Point, hip_z: float) -> None:
    """Pelvis, waist to chest, shoulders, and the skirts of a coat."""
    h, g = person.height, person.girth
    top, bottom, pattern = TOP[person.top_colour], BOTTOM[person.bottom_colour], _top_pattern(person)
    low, high = (0, 0, hip_z + 0.01 * h), (0, 0, hip_z + 0.05 * h)
    tailor.add(low, high, (0.088 * h * g, 0.08 * h * g), bottom, (1, 0.72, 1))
    thick = 1.08 if person.top == "coat" else 1.0
    waist, chest = (0.0, 0.2 * shoulder[1], hip_z + 0.06 * h), shift(shoulder, z=-0.075 * h)
    radii = (0.082 * h * g**1.3 * thick, 0.094 * h * g * thick)
    to_shoulder = waist[2] - shoulder[2]
    tailor.add(waist, chest, radii, top, (1.05, 0.72, 1), pattern, (1, to_shoulder))
    flat = (1.72 * g**0.7 * thick, 1.0 * g**0.7, 0.85)
    tailor.add_ball(shift(shoulder, z=-0.03 * h), 0.062 * h, top, flat, pattern, -0.03 * h)
    if person.top == "coat":
        hem, radii = (0.0, 0.0, hip_z - 0.14 * h), (0.088 * h * g, 0.112 * h * g)
        tailor.add(waist, hem, radii, top, (1, 0.82, 0.3), pattern, (-1, to_shoulder))


def _add_arms(tailor: Tailor, person: Person, pose: Pose, shoulder: Point) -> list[Point]:
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
        joint = shift(shoulder, x=side * 0.094 * h * g**0.8, z=-0.034 * h)
        elbow = along(joint, swing, 0.165 * h, side * pose.spread)
        wrist = along(elbow, swing + bend, 0.14 * h, side * 0.4 * pose.spread)
        hand = along(wrist, swing + bend, 0.04 * h)
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


def _add_head(tailor: Tailor, person: Person, shoulder: Point) -> None:
    """Neck, face, hair and hat."""
    h = person.height
    skin, hair, hat = SKIN[person.skin], HAIR[person.hair_colour], ACCESSORY[person.hat_colour]
    crown = crown_pattern(person.details)
    jaw, skull = shift(shoulder, y=0.012 * h, z=0.075 * h), shift(shoulder, y=0.004 * h, z=0.125 * h)
    tailor.add(shift(shoulder, z=0.005 * h), jaw, (0.04 * h, 0.03 * h), skin)
    tailor.add(jaw, skull, (0.037 * h, 0.05 * h), skin, (0.92, 1.08, 1), (FACE, (40, 28, 26)))
    cap = shift(skull, y=-0.012 * h, z=0.007 * h)
    if person.hair_style != "bald":
        tailor.add_ball(cap, 0.055 * h, hair, (0.96, 1.06, 0.98), crown)
        nape = shift(jaw, y=-0.022 * h, z=0.01 * h)
        tailor.add(shift(cap, y=-0.008 * h), nape, (0.048 * h, 0.036 * h), hair)
    if person.hair_style == "long":
        tip = shift(shoulder, y=-0.05 * h, z=-0.06 * h)
        tailor.add(shift(cap, y=-0.012 * h), tip, (0.05 * h, 0.048 * h), hair, (1.2, 0.7, 1))
    elif person.hair_style == "ponytail":
        knot, tip = shift(cap, y=-0.062 * h, z=-0.005 * h), shift(shoulder, y=-0.085 * h)
        tailor.add(knot, tip, (0.022 * h, 0.013 * h), hair)
    elif person.hair_style == "bun":
        tailor.add_ball(shift(cap, y=-0.035 * h, z=0.045 * h), 0.03 * h, hair)
    if person.hat != "none":
        dome = shift(skull, y=-0.005 * h, z=0.016 * h)
        tailor.add_ball(dome, 0.059 * h, hat, (1, 1.1, 0.95 if person.hat == "beanie" else 0.8), crown)
        if person.hat == "brim":
            tailor.add_ball(dome, 0.115 * h, hat, (1, 1.05, 0.1))
        elif person.hat == "cap":
            tailor.add_ball(shift(dome, y=0.06 * h), 0.05 * h, hat, (1, 1.1, 0.16))


def _add_bag(tailor: Tailor, person: Person, shoulder: Point, hands: list[Point]) -> None:
    """A backpack with straps, a bag on a strap across the chest, or one in the hand."""
    h, g, bag = person.height, person.girth, ACCESSORY[person.bag_colour]
    if person.bag == "backpack":
        low = shift(shoulder, y=-0.115 * h * g, z=-0.2 * h)
        high = shift(shoulder, y=-0.11 * h * g, z=-0.05 * h)
        tailor.add(low, high, (0.085 * h, 0.075 * h), bag, (1.05, 0.72, 1))
        for side in (-1, 1):
            x = side * 0.06 * h
            rear, peak = shift(shoulder, x, -0.07 * h * g, -0.02 * h), shift(shoulder, x, z=0.018 * h)
            collar = shift(shoulder, x, 0.052 * h * g, -0.015 * h)
            front = shift(shoulder, x, 0.068 * h * g, -0.12 * h)
            tailor.add_strap([rear, peak, collar, front], 0.012 * h, bag)
    elif person.bag == "shoulder_bag":
        hip = shift(shoulder, x=0.125 * h * g, y=-0.02 * h, z=-0.29 * h)
        tailor.add(hip, shift(hip, z=0.06 * h), (0.06 * h, 0.055 * h), bag, (0.55, 1.3, 1))
        peak = shift(shoulder, x=-0.075 * h, z=0.022 * h)
        for side in (-1, 1):
            high = shift(shoulder, -0.055 * h, side * 0.068 * h * g, -0.04 * h)
            low = shift(shoulder, 0.065 * h, side * 0.066 * h * g, -0.19 * h)
            tailor.add_strap([peak, high, low, shift(hip, z=0.07 * h)], 0.011 * h, bag)
    elif person.bag == "handbag":
        low, high = shift(hands[1], z=-0.15 * h), shift(hands[1], z=-0.09 * h)
        tailor.add(low, high, (0.065 * h, 0.05 * h), bag, (0.5, 1.25, 1))
