"""Procedural ground and walls: small periodic tiles, looked up by world position."""

from functools import lru_cache

import numpy as np

from fastreid.rendered.camera import Camera, Shot

TILE = 256  # texels along a side
TEXELS_PER_METRE = 64  # so a tile repeats every 4 m


def cloudy(rng: np.random.Generator, roughness: float) -> np.ndarray:
    """(TILE, TILE) periodic noise, mean 0, deviation 1, with a ``1 / frequency^roughness`` spectrum."""
    frequency = np.fft.fftfreq(TILE)[:, None] ** 2 + np.fft.rfftfreq(TILE)[None] ** 2
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE))) / frequency ** (roughness / 2)
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(TILE, TILE))
    return noise / noise.std()


def _joints(width: int, height: int, thickness: int, shift: int) -> np.ndarray:
    """(TILE, TILE) mask of the mortar between stones; every second row is moved by `shift`."""
    y, x = np.mgrid[:TILE, :TILE]
    x = x + shift * ((y // height) % 2)
    return (y % height < thickness) | (x % width < thickness)


def _base(style: str, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The colour of a style, 0-1, and how strongly it is mottled."""
    palette = {
        "asphalt": ((0.33, 0.33, 0.35), 0.04),
        "crossing": ((0.30, 0.30, 0.32), 0.04),
        "slabs": ((0.60, 0.58, 0.54), 0.04),
        "grass": ((0.30, 0.40, 0.20), 0.08),
        "bricks": ((0.55, 0.38, 0.32), 0.06),
        "masonry": ((0.62, 0.55, 0.47), 0.05),
        "windows": ((0.66, 0.64, 0.60), 0.03),
        "hedge": ((0.22, 0.32, 0.16), 0.10),
    }
    colour, mottle = palette[style]
    return np.array(colour) * rng.uniform(0.75, 1.25) + rng.uniform(-0.03, 0.03, 3), mottle


@lru_cache(maxsize=128)
def tile(style: str, seed: int) -> np.ndarray:
    """(TILE, TILE, 3) float32 periodic texture of a style; rows are y (ground) or z (wall)."""
    rng = np.random.default_rng(seed)
    colour, mottle = _base(style, rng)
    fine, coarse = cloudy(rng, 0.6), cloudy(rng, 1.6)
    texture = colour * (1 + mottle * (fine + coarse))[..., None]
    if style in ("slabs", "bricks", "masonry"):
        width, height, shift = {"slabs": (64, 64, 0), "bricks": (16, 8, 8), "masonry": (64, 32, 32)}[style]
        texture[_joints(width, height, 2, shift)] *= 0.72
    elif style == "crossing":
        rows = np.arange(TILE) % 64 < 30
        texture[rows] = texture[rows] * 0.3 + 0.5
    elif style == "windows":
        y, x = np.mgrid[:TILE, :TILE]
        glass = (y % 128 > 40) & (x % 96 > 30) & (x < 192)
        texture[glass] = np.array([0.25, 0.3, 0.36]) * (1 + 0.25 * coarse[glass])[:, None]
    return np.clip(texture, 0.02, 0.98).astype(np.float32)


def look_up(texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(N, 3) colours at (u, v) metres."""
    column = (u * TEXELS_PER_METRE).astype(np.int32) & (TILE - 1)
    row = (v * TEXELS_PER_METRE).astype(np.int32) & (TILE - 1)
    return texture[row, column]


def surroundings(camera: Camera, shot: Shot, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour what rays (N, 3) from the camera meet behind the person: ground, a wall, or the sky.

    Returns depth (N,) in units of the ray, colour (N, 3), and normals (N, 3); a sky pixel has a zero normal,
    which marks that it shines itself.
    """
    with np.errstate(divide="ignore"):
        to_ground = np.where(rays[:, 2] < 0, -shot.eye[2] / rays[:, 2], np.inf)
        to_wall = np.where(rays[:, 1] > 0, (camera.wall_distance - shot.eye[1]) / rays[:, 1], np.inf)
    depth = np.minimum(to_ground, to_wall).astype(np.float32)
    sky = ~np.isfinite(depth)
    depth[sky] = 1e4
    points = shot.eye + depth[:, None] * rays
    cos, sin = float(np.cos(shot.turn)), float(np.sin(shot.turn))  # NumPy scalars would widen to float64
    u = cos * points[:, 0] + sin * points[:, 1] + shot.offset[0]
    v = cos * points[:, 1] - sin * points[:, 0] + shot.offset[1]
    colour = look_up(tile(camera.ground, camera.texture_seed), u, v)
    normal = np.zeros_like(points)
    normal[:, 2] = 1
    wall = to_wall < to_ground
    if wall.any():
        texture = tile(camera.wall, camera.texture_seed + 1)
        colour[wall] = look_up(texture, points[wall, 0] + shot.offset[2], points[wall, 2])
        normal[wall] = (0, -1, 0)
        sky |= wall & (points[:, 2] > 7)
    colour[sky] = (0.74, 0.8, 0.88)
    normal[sky] = 0
    return depth, colour, normal
