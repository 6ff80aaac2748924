"""People whose views show different things of them, dressed in styles.

Each view has cues of its own: crown, shoulders and collar are seen from above; legs, knees, socks and shoes
from the ground. They are drawn one by one, so that none gives away another, but for the *style* of the
person, whose taste makes some values of every attribute more likely: what one view shows says something of
what the other would show, and not all.
"""

from functools import lru_cache

import numpy as np

from fastreid.rendered.person import CHOICES, DETAIL_CHOICES, Details, Person, dress

STYLES = 12
TASTE = 1.2  # how much styles differ: the standard deviation of the logarithm of a weight
STYLE_SEED = 20250414  # of the tastes, the same in every benchmark

# What all views show is less varied than without a view gap: the share of each value, by attribute.
SHARED: dict[str, tuple[float, ...]] = {
    "hat": (0.45, 0.2, 0.2, 0.15),
    "top_pattern": (0.76, 0.04, 0.04, 0.04, 0.04, 0.04, 0.04),
    "bottom": (0.7, 0.15, 0.15),
    "bag": (0.55, 0.25, 0.12, 0.08),
}


@lru_cache(maxsize=1)
def tastes() -> dict[str, np.ndarray]:
    """The probabilities (STYLES, values) of every attribute and detail."""
    rng = np.random.default_rng(STYLE_SEED)
    shares = {name: SHARED.get(name, share) for name, (_, share) in CHOICES.items()}
    shares |= {name: (1.0,) * len(values) for name, values in DETAIL_CHOICES.items()}
    weights = {
        name: np.array(share) * np.exp(TASTE * rng.standard_normal((STYLES, len(share))))
        for name, share in shares.items()
    }
    return {name: weight / weight.sum(axis=1, keepdims=True) for name, weight in weights.items()}


def sample_styled_person(rng: np.random.Generator) -> Person:
    """Draw a person of a style, with details."""
    style = int(rng.integers(STYLES))
    values = {name: names for name, (names, _) in CHOICES.items()} | DETAIL_CHOICES
    drawn = {name: names[rng.choice(len(names), p=tastes()[name][style])] for name, names in values.items()}
    details = Details(**{name: drawn.pop(name) for name in DETAIL_CHOICES})
    return dress(drawn, details, rng)
