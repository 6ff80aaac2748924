"""A person as a choice from small palettes, so that people can be told apart but not at a glance."""

from dataclasses import dataclass

import numpy as np

SKIN = {
    "fair": (233, 198, 174),
    "light": (214, 170, 138),
    "tan": (182, 134, 100),
    "brown": (134, 92, 66),
    "dark": (88, 60, 46),
}
HAIR = {
    "black": (28, 25, 26),
    "brown": (84, 56, 36),
    "hazel": (142, 106, 68),
    "blond": (206, 170, 108),
    "red": (148, 66, 34),
    "grey": (172, 170, 168),
}
TOP = {
    "white": (232, 232, 228),
    "black": (38, 38, 42),
    "grey": (132, 134, 138),
    "navy": (36, 48, 98),
    "blue": (58, 116, 196),
    "red": (190, 42, 44),
    "green": (50, 124, 66),
    "yellow": (226, 190, 60),
    "pink": (222, 136, 164),
    "beige": (196, 174, 138),
}
BOTTOM = {
    "black": (36, 36, 40),
    "navy": (40, 48, 84),
    "denim": (82, 108, 150),
    "grey": (120, 120, 122),
    "khaki": (164, 144, 104),
    "white": (222, 220, 214),
    "olive": (88, 92, 56),
    "maroon": (112, 38, 48),
}
SHOE = {
    "black": (30, 30, 32),
    "white": (226, 226, 224),
    "red": (172, 44, 44),
    "brown": (104, 70, 44),
    "blue": (52, 84, 150),
}
ACCESSORY = {
    "black": (34, 34, 38),
    "red": (184, 40, 44),
    "blue": (46, 88, 168),
    "green": (58, 110, 64),
    "beige": (190, 166, 126),
    "white": (226, 226, 222),
}

ACCENT = {
    "white": (236, 236, 232),
    "black": (30, 30, 34),
    "red": (206, 36, 40),
    "orange": (236, 128, 32),
    "yellow": (238, 208, 52),
    "green": (44, 140, 64),
    "teal": (32, 158, 160),
    "blue": (44, 92, 208),
    "violet": (122, 58, 168),
    "pink": (234, 122, 172),
}

# field -> (its values, how often each occurs)
CHOICES: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "stature": (("short", "medium", "tall"), (0.3, 0.4, 0.3)),
    "build": (("slim", "average", "heavy"), (0.3, 0.45, 0.25)),
    "skin": (tuple(SKIN), (0.2, 0.25, 0.2, 0.2, 0.15)),
    "hair_style": (("bald", "short", "long", "bun", "ponytail"), (0.08, 0.37, 0.25, 0.14, 0.16)),
    "hair_colour": (tuple(HAIR), (0.28, 0.2, 0.14, 0.16, 0.1, 0.12)),
    "hat": (("none", "cap", "brim", "beanie"), (0.6, 0.18, 0.1, 0.12)),
    "hat_colour": (tuple(ACCESSORY), (1 / 6,) * 6),
    "top": (("short_sleeve", "long_sleeve", "coat"), (0.42, 0.34, 0.24)),
    "top_colour": (tuple(TOP), (0.1,) * 10),
    "top_pattern": (
        ("plain", "hoops", "stripes", "checks", "logo", "yoke", "sleeves"),
        (0.28, 0.12, 0.12, 0.12, 0.12, 0.12, 0.12),
    ),
    "second_colour": (tuple(TOP), (0.1,) * 10),
    "bottom": (("trousers", "shorts", "skirt"), (0.58, 0.22, 0.2)),
    "bottom_colour": (tuple(BOTTOM), (0.125,) * 8),
    "shoe_colour": (tuple(SHOE), (0.3, 0.3, 0.1, 0.2, 0.1)),
    "bag": (("none", "backpack", "shoulder_bag", "handbag"), (0.45, 0.25, 0.18, 0.12)),
    "bag_colour": (tuple(ACCESSORY), (1 / 6,) * 6),
}
# detail -> its values, equally frequent but for the styles' tastes
DETAIL_CHOICES: dict[str, tuple[str, ...]] = {
    "crown": ("button", "ring", "halves", "quarters", "plain"),
    "crown_colour": tuple(ACCENT),
    "left_shoulder": tuple(ACCENT),
    "right_shoulder": tuple(ACCENT),
    "collar": tuple(ACCENT),
    "front": ("none", "disc", "bar", "sash"),
    "front_colour": tuple(ACCENT),
    "legs": ("plain", "bands", "seams"),
    "leg_colour": tuple(ACCENT),
    "knees": tuple(ACCENT),
    "socks": tuple(ACCENT),
    "toes": tuple(ACCENT),
}
# an attribute that is only there when another field is not this value
_DEPENDS = {
    "hair_colour": ("hair_style", "bald"),
    "hat_colour": ("hat", "none"),
    "second_colour": ("top_pattern", "plain"),
    "bag_colour": ("bag", "none"),
}
ATTRIBUTE_NAMES = tuple(f"{field}_{value}" for field, (values, _) in CHOICES.items() for value in values)


@dataclass(frozen=True, slots=True)
class Details:
    """The looks that a person shows to one view and hardly to another: names out of `DETAIL_CHOICES`."""

    crown: str
    crown_colour: str
    left_shoulder: str
    right_shoulder: str
    collar: str
    front: str
    front_colour: str
    legs: str
    leg_colour: str
    knees: str
    socks: str
    toes: str


@dataclass(frozen=True, slots=True)
class Person:
    """The lasting look of one identity: names out of the palettes above, and two body measures."""

    stature: str
    build: str
    skin: str
    hair_style: str
    hair_colour: str
    hat: str
    hat_colour: str
    top: str
    top_colour: str
    top_pattern: str
    second_colour: str
    bottom: str
    bottom_colour: str
    shoe_colour: str
    bag: str
    bag_colour: str
    height: float  # metres
    girth: float  # widths relative to an average body
    details: Details | None = None  # what only one view shows


_HEIGHT = {"short": 1.58, "medium": 1.71, "tall": 1.84}
_GIRTH = {"slim": 0.88, "average": 1.0, "heavy": 1.17}


def sample_person(rng: np.random.Generator) -> Person:
    """Draw a person without details. The two colours of a patterned top always differ."""
    look = {field: values[rng.choice(len(values), p=weights)] for field, (values, weights) in CHOICES.items()}
    return dress(look, None, rng)


def dress(look: dict[str, str], details: Details | None, rng: np.random.Generator) -> Person:
    """Make a person of the looks that were chosen; a second colour that is the first is drawn again."""
    if look["second_colour"] == look["top_colour"]:
        names = list(TOP)
        shift = 1 + int(rng.integers(len(names) - 1))
        look["second_colour"] = names[(names.index(look["top_colour"]) + shift) % len(names)]
    return Person(
        **look,
        height=_HEIGHT[look["stature"]] + float(rng.uniform(-0.05, 0.05)),
        girth=_GIRTH[look["build"]] * float(rng.uniform(0.96, 1.04)),
        details=details,
    )


def attributes_of(person: Person) -> dict[str, int]:
    """The 88 binary attributes in the QUT coding: 2 = the person has it, 1 = not."""
    look = {field: getattr(person, field) for field in CHOICES}
    present = {
        name for name in CHOICES if name not in _DEPENDS or look[_DEPENDS[name][0]] != _DEPENDS[name][1]
    }
    return {
        f"{name}_{value}": 2 if name in present and look[name] == value else 1
        for name, (values, _) in CHOICES.items()
        for value in values
    }
