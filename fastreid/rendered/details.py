"""The parts and patterns of a person's details."""

from fastreid.rendered.cloth import BANDS, BUTTON, HALVES, QUARTERS, RING, SEAMS
from fastreid.rendered.person import ACCENT, Details, Person
from fastreid.rendered.tailor import Point, Tailor, shift

_CROWNS = {"button": BUTTON, "ring": RING, "halves": HALVES, "quarters": QUARTERS}
_LEGS = {"bands": BANDS, "seams": SEAMS}
_PRINTS = {  # flattening of a ball, sideways and upright
    "disc": (1.0, 1.0),
    "bar": (1.5, 0.4),
    "sash": (0.4, 1.5),
}


def crown_pattern(details: Details | None) -> tuple[int, tuple] | None:
    """The pattern on top of hat or hair, and its colour."""
    if details is None or details.crown == "plain":
        return None
    return _CROWNS[details.crown], ACCENT[details.crown_colour]


def leg_pattern(details: Details | None) -> tuple[int, tuple] | None:
    """The pattern of trousers, shorts or skirt, and its colour."""
    if details is None or details.legs not in _LEGS:
        return None
    return _LEGS[details.legs], ACCENT[details.leg_colour]


def add_leg_details(
    tailor: Tailor, person: Person, details: Details, knee: Point, ankle: Point, toe: Point
) -> None:
    """A patch on the knee, a sock, and the toe of a shoe."""
    h, g = person.height, person.girth
    tailor.add_ball(knee, 0.042 * h * g, ACCENT[details.knees], (1, 1, 1.3))
    calf = tuple(0.4 * k + 0.6 * a for k, a in zip(knee, ankle, strict=True))
    tailor.add(calf, ankle, (0.031 * h, 0.028 * h), ACCENT[details.socks])
    tailor.add_ball(toe, 0.03 * h, ACCENT[details.toes], (1, 1.4, 1))


def add_trunk_details(tailor: Tailor, person: Person, details: Details, shoulder: Point) -> None:
    """A print on the front, patches on the shoulders, and a collar."""
    h, g = person.height, person.girth
    if details.front != "none":
        wide, high = _PRINTS[details.front]
        belly = shift(shoulder, y=0.06 * h * g - 0.6 * shoulder[1], z=-0.2 * h)
        tailor.add_ball(belly, 0.062 * h, ACCENT[details.front_colour], (wide, 0.4, high))
    for side, colour in ((-1, details.left_shoulder), (1, details.right_shoulder)):
        cap = shift(shoulder, x=side * 0.075 * h * g**0.7, z=0.004 * h)
        tailor.add_ball(cap, 0.052 * h, ACCENT[colour], (1.05, 1.1, 0.28))
    tailor.add_ball(shift(shoulder, z=0.014 * h), 0.055 * h, ACCENT[details.collar], (1.1, 1.15, 0.22))
