"""The cameras of a benchmark, and where one of them stands when it takes one picture.

World: x to the camera's right, y away from it, z up, metres; the person stands at the origin.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

ELEVATION = {"ground": (0.0, 15.0), "aerial": (45.0, 80.0)}  # degrees above the horizontal
WANDER = {"ground": 2.0, "aerial": 7.0}  # degrees, standard deviation of one camera's elevation
DISTANCE = {"ground": (5.0, 13.0), "wearable": (2.2, 5.0), "aerial": (8.0, 30.0)}  # metres
EYE_HEIGHT = (1.5, 1.75)  # metres, of a wearable camera
AERIAL_DETAIL, AERIAL_HAZE = 0.9, (0.08, 0.22)
GROUND_STYLES = ("asphalt", "slabs", "grass", "bricks", "crossing")
WALL_STYLES = ("masonry", "windows", "hedge")


class Detector(NamedTuple):
    """The habits of a detector that draws boxes around the people of a view."""

    cut_legs: float  # share of the boxes that end above the feet by mistake
    lowest: tuple[float, float] = (0.0, 0.0)  # where boxes end, as shares of the person's height
    widest: float = 1.3  # how much wider a box may be than the picture that it is stretched to


@dataclass(frozen=True, slots=True)
class Camera:
    """The constants of all pictures of one camera."""

    view: str  # "aerial", "ground" or "wearable"
    elevation: float  # degrees, typical (not used by a wearable camera)
    distance: float  # metres, typical
    detail: float  # pixels of the sensor for one pixel of the picture, each way
    noise: float  # standard deviation, 0-1
    tint: tuple[float, float, float]  # white balance times exposure
    sun: tuple[float, float, float]  # colour and strength of the direct light
    sky: tuple[float, float, float]  # colour and strength of the light from everywhere
    sun_azimuth: float  # radians, in a fixed camera's own frame
    sun_elevation: float  # radians
    ground: str
    wall: str
    wall_distance: float  # metres behind the person
    texture_seed: int
    fixed: bool  # fixed cameras keep their sun and ground; flying and worn ones turn
    elevations: tuple[float, float]  # degrees, the limits of one picture's
    haze: tuple[float, float]  # share of it in one picture, at least and at most
    detector: Detector


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture's viewpoint. `basis` rows are right, up and forward; image x = X/Z, y = Y/Z."""

    eye: np.ndarray  # (3,) float32
    basis: np.ndarray  # (3, 3) float32
    sun: np.ndarray  # (3, 3) float32, rows: two directions across the light, and the one towards it
    turn: float  # radians, of the ground's texture
    offset: tuple[float, float, float]  # metres, where on the ground's and wall's texture the person stands
    exposure: float


def sample_camera(rng: np.random.Generator, view: str) -> Camera:
    """Draw a camera of a view; aerial ones resolve less and look through haze."""
    warm = rng.uniform(-1, 1)
    cast = np.array([1 + 0.07 * warm, 1 + rng.uniform(-0.03, 0.03), 1 - 0.07 * warm])
    sunny = rng.uniform(0.15, 0.6)
    return Camera(
        view=view,
        elevation=float(rng.uniform(*ELEVATION.get(view, (0.0, 0.0)))),
        distance=float(rng.uniform(*DISTANCE[view])),
        detail=float(rng.uniform(0.45, 0.75) if view == "aerial" else rng.uniform(0.8, 1.0)),
        noise=float(rng.uniform(0.008, 0.03)),
        tint=tuple(float(v) for v in cast * rng.uniform(0.88, 1.1)),
        sun=tuple(float(v) for v in np.array([1.0, 0.95, 0.85]) * sunny),
        sky=tuple(float(v) for v in np.array([0.95, 0.98, 1.05]) * (1.12 - 0.6 * sunny)),
        sun_azimuth=float(rng.uniform(0, 2 * np.pi)),
        sun_elevation=float(np.radians(rng.uniform(30, 70))),
        ground=str(rng.choice(GROUND_STYLES)),
        wall=str(rng.choice(WALL_STYLES)),
        wall_distance=float(rng.uniform(3, 18)),
        texture_seed=int(rng.integers(2**31)),
        fixed=view == "ground",
        elevations=ELEVATION.get(view, (0.0, 0.0)),
        haze=(0.02, 0.1) if view == "aerial" else (0.0, 0.0),
        detector=Detector(cut_legs=0.0 if view == "aerial" else 0.06),
    )


def set_apart(camera: Camera, elevations: tuple[float, float] | None, rng: np.random.Generator) -> Camera:
    """The same camera with what sets its view apart: its optics, and a drone's `elevations`, where given.

    Drones look through haze, with a cold cast, at fewer pixels, and their boxes end at the thighs; what is
    worn looks warm.
    """
    if camera.view != "aerial":
        warm = rng.uniform(0.02, 0.1) if camera.view == "wearable" else rng.uniform(-0.02, 0.05)
        return replace(camera, tint=_cast(camera.tint, warm))
    elevations = elevations or camera.elevations
    return replace(
        camera,
        elevations=elevations,
        elevation=float(rng.uniform(*elevations)),
        detail=camera.detail * AERIAL_DETAIL,
        tint=_cast(camera.tint, -rng.uniform(0.04, 0.12)),
        haze=AERIAL_HAZE,
        detector=Detector(cut_legs=0.0, lowest=(0.4, 0.55), widest=2.2),
    )


def _cast(tint: tuple[float, float, float], warm: float) -> tuple[float, float, float]:
    return tint[0] * (1 + warm), tint[1], tint[2] * (1 - warm)


def _spherical(azimuth: float, elevation: float) -> np.ndarray:
    return np.array(
        [np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)]
    )


def look_along(forward: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """(3, 3) float32 orthonormal basis with rows right, up, forward; `roll` radians about forward."""
    right = np.cross(forward, [0, 0, 1])
    right /= np.sqrt(np.sum(right**2))
    up = np.cross(right, forward)
    cos, sin = np.cos(roll), np.sin(roll)
    return np.stack([cos * right + sin * up, cos * up - sin * right, forward]).astype(np.float32)


def elevation_of(camera: Camera, distance: float, height: float, rng: np.random.Generator) -> float:
    """Radians above the horizontal at which the camera sees the middle of a person of that height."""
    if camera.view == "wearable":
        return float(np.arcsin((rng.uniform(*EYE_HEIGHT) - height / 2) / distance))
    low, high = camera.elevations
    return float(np.radians(np.clip(camera.elevation + rng.normal(0, WANDER[camera.view]), low, high)))


def sample_shot(rng: np.random.Generator, camera: Camera, height: float) -> Shot:
    """Place the camera for one picture of a person who is `height` metres tall."""
    distance = camera.distance * float(rng.uniform(0.8, 1.25))
    elevation = elevation_of(camera, distance, height, rng)
    forward = -_spherical(np.pi, elevation)
    eye = np.array([0, 0, height / 2]) - distance * forward
    roll = rng.normal(0, 0.02 if camera.fixed else 0.07)
    turn = 0.0 if camera.fixed else rng.uniform(0, 2 * np.pi)
    azimuth = camera.sun_azimuth + turn
    sun = look_along(_spherical(azimuth, camera.sun_elevation))
    return Shot(
        eye=eye.astype(np.float32),
        basis=look_along(forward, float(roll)),
        sun=sun,
        turn=float(turn),
        offset=tuple(float(v) for v in rng.uniform(0, 8, 3)),
        exposure=float(rng.uniform(0.9, 1.1)),
    )


def at_night(camera: Camera) -> Camera:
    """The same camera under street lamps: darker, bluish, and noisier."""
    return replace(
        camera,
        sun=tuple(0.5 * v for v in camera.sun),
        sky=tuple(0.68 * v * cast for v, cast in zip(camera.sky, (0.92, 0.97, 1.12), strict=True)),
        noise=1.6 * camera.noise,
    )
