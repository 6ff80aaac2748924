"""The cloth on a body's parts, and its patterns."""

from typing import NamedTuple

import numpy as np

PLAIN, HOOPS, STRIPES, CHECKS, LOGO, YOKE, FACE, BUTTON, RING, HALVES, QUARTERS, BANDS, SEAMS = range(13)
PERIOD = 0.13  # metres, of stripes and checks
CROWN = 0.05  # metres above the middle of a head: what lies higher faces the sky


class Cloth(NamedTuple):
    """The cloth or skin of each of the P parts."""

    colours: np.ndarray  # (P, 2, 3) the two colours of the pattern, 0-1
    pattern: np.ndarray  # (P,) one of the pattern codes
    scale: np.ndarray  # (P, 3) part space -> cloth coordinates in metres
    height: np.ndarray  # (P,) added to the cloth's z; z = 0 is the shoulder line


def cloth_colour(cloth: Cloth, index: np.ndarray, local: np.ndarray) -> np.ndarray:
    """(N, 3) colour of the cloth at part-space points `local` (N, 3) of the parts `index` (N,)."""
    x, y, z = (local * cloth.scale[index]).T
    z = z + cloth.height[index]
    pattern = cloth.pattern[index]
    second = _on_garments(pattern, x, y, z) | _on_details(pattern, x, y, z)
    eyes = (y > 0) & (np.abs(np.abs(x) - 0.03) < 0.013) & (np.abs(local[:, 2] - 0.07) < 0.009)
    second |= (pattern == FACE) & eyes
    folds = 1 + 0.05 * np.sin(31 * z + 9 * x) * np.sin(23 * x + 17 * y)
    return cloth.colours[index, second.astype(np.intp)] * folds[:, None]


def _on_garments(pattern: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(N,) where the patterns of tops have their second colour; x, y, z (N,) metres."""
    hoop, stripe = np.mod(z, PERIOD) < PERIOD / 2, np.mod(x, PERIOD) < PERIOD / 2
    front = (y > 0) & (np.abs(x) < 0.075) & (np.abs(z + 0.15) < 0.075)
    back = (y < 0) & (np.abs(x) < 0.12) & (np.abs(z + 0.17) < 0.13)
    return (
        ((pattern == HOOPS) & hoop)
        | ((pattern == STRIPES) & stripe)
        | ((pattern == CHECKS) & (hoop ^ stripe))
        | ((pattern == LOGO) & (front | back))
        | ((pattern == YOKE) & (z > -0.12))
    )


def _on_details(pattern: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(N,) the same for what only one view shows: crowns and legs."""
    across, up = np.hypot(x, y), z > CROWN
    return (
        ((pattern == BUTTON) & up & (across < 0.045))
        | ((pattern == RING) & up & (across > 0.035) & (across < 0.07))
        | ((pattern == HALVES) & up & (x > 0))
        | ((pattern == QUARTERS) & up & (x * y > 0))
        | ((pattern == BANDS) & (np.mod(z, 0.14) < 0.07))
        | ((pattern == SEAMS) & (np.abs(y) < 0.022))
    )
