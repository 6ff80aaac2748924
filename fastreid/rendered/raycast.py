"""Ray casting of round cones, vectorised over all (ray, part) pairs that can meet.

A *part* is the convex hull of two spheres on the z axis of its own space (radius ``r0`` at 0, ``r1`` at
``length``), put into the world by an affine map: capsules, cones, spheres, ellipsoids and flattened limbs
are all of this one form, so that a single closed-form intersection serves a whole body. Nothing here calls
BLAS: worker processes stay single-threaded, and the result does not depend on the BLAS library.
"""

from typing import NamedTuple

import numpy as np

EPSILON = np.float32(1e-9)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner product over a last axis of length 3, several times faster than `np.sum` of the product."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


class Parts(NamedTuple):
    """P parts. All arrays float32, lengths in metres."""

    origin: np.ndarray  # (P, 3) world position of the part-space origin
    axes: np.ndarray  # (P, 3, 3) columns are the world vectors of the part-space unit vectors
    inverse: np.ndarray  # (P, 3, 3) inverse of axes
    radii: np.ndarray  # (P, 2) r0, r1 in part space
    length: np.ndarray  # (P,) distance of the two spheres in part space

    @property
    def slope(self) -> np.ndarray:
        """(P,) sine of the half opening angle, ``(r0 - r1) / length`` (0 for a single sphere)."""
        return (self.radii[:, 0] - self.radii[:, 1]) / np.maximum(self.length, EPSILON)


def _end_ellipsoids(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Centres (2, P, 3) and semi-axes (2, P, 3, 3) of the two world ellipsoids that span each part."""
    far = parts.origin + parts.axes[:, :, 2] * parts.length[:, None]
    return np.stack([parts.origin, far]), parts.radii.T[:, :, None, None] * parts.axes[None]


def perspective_boxes(parts: Parts, eye: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """(P, 4) exact boxes x0, y0, x1, y1 of the parts' pinhole images (x = X/Z, y = Y/Z).

    `basis` (3, 3) has the camera's right, up and forward vectors as rows. The image of an ellipsoid with
    centre c and semi-axes E has the dual conic ``E E' - c c'``; the box touches it (Hartley & Zisserman,
    *Multiple View Geometry*, 8.3). Every part must lie in front of the camera.
    """
    centres, semi = _end_ellipsoids(parts)
    c = dot((centres - eye)[..., None, :], basis)
    e = np.sum(basis[:, :, None] * semi[:, :, None], axis=-2)  # rows: right, up, forward
    norm_zz = dot(e[..., 2, :], e[..., 2, :]) - c[..., 2] ** 2
    low, high = [], []
    for axis in (0, 1):
        cross = dot(e[..., axis, :], e[..., 2, :]) - c[..., axis] * c[..., 2]
        own = dot(e[..., axis, :], e[..., axis, :]) - c[..., axis] ** 2
        root = np.sqrt(np.maximum(cross**2 - own * norm_zz, 0))
        low.append(((cross + root) / norm_zz).min(axis=0))
        high.append(((cross - root) / norm_zz).max(axis=0))
    return np.stack([*low, *high], axis=-1)


def parallel_boxes(parts: Parts, basis: np.ndarray) -> np.ndarray:
    """(P, 4) exact boxes x0, y0, x1, y1 of the parts' parallel projection on the rows 0 and 1 of `basis`."""
    centres, semi = _end_ellipsoids(parts)
    middle = dot(centres[..., None, :], basis[:2])
    across = np.sum(basis[:2, :, None] * semi[:, :, None], axis=-2)
    reach = np.sqrt(dot(across, across))
    return np.concatenate([(middle - reach).min(axis=0), (middle + reach).max(axis=0)], axis=-1)


def intersect(
    parts: Parts, index: np.ndarray, origin: list[np.ndarray], direction: list[np.ndarray]
) -> np.ndarray:
    """Ray parameter (K,) of the first hit of ray k with part ``index[k]``; infinity where there is none.

    `origin` and `direction` are the x, y, z components (K,) of the rays in the *part's* space; rays start
    outside of their part, and hits behind the start do not count. The cone's mantle touches both spheres, so
    with s the slope and k^2 = 1 - s^2 it is ``k^2 (x^2 + y^2) = (r0 - s z)^2`` for r0 s < z < length + r1 s.
    """
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    r0, r1 = parts.radii[index, 0], parts.radii[index, 1]
    length, s = parts.length[index], parts.slope[index]
    bottom, top = r0 * s, length + r1 * s
    dxy, oxy, odxy = dx * dx + dy * dy, ox * ox + oy * oy, ox * dx + oy * dy
    with np.errstate(divide="ignore", invalid="ignore"):
        k2, taper = 1 - s * s, r0 - s * oz
        a = k2 * dxy - s * s * dz * dz
        b = k2 * odxy + s * dz * taper
        mantle = (-b - np.sqrt(b * b - a * (k2 * oxy - taper * taper))) / a
        z = oz + mantle * dz
        hit = np.where((z > bottom) & (z < top) & (mantle > 0), mantle, np.inf)

        a = dxy + dz * dz
        for radius, height in ((r0, None), (r1, length)):
            w = oz if height is None else oz - height
            b = odxy + w * dz
            ball = (-b - np.sqrt(b * b - a * (oxy + w * w - radius * radius))) / a
            z = oz + ball * dz
            on_cap = z <= bottom if height is None else z >= top
            hit = np.where(on_cap & (ball > 0) & (ball < hit), ball, hit)
    return hit


def first_hits(
    parts: Parts, eye: np.ndarray, basis: np.ndarray, xs: np.ndarray, ys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cast the rays ``forward + x right + y up`` from `eye` for every (y, x) of the pixel grid.

    Returns depth (H*W,) along the camera's forward axis, infinite where nothing is hit, and the number of
    the part that was hit (H*W,). Only pixels inside a part's box are tried against it.
    """
    boxes = perspective_boxes(parts, eye, basis)
    columns = (xs >= boxes[:, 0:1]) & (xs <= boxes[:, 2:3])
    rows = (ys >= boxes[:, 1:2]) & (ys <= boxes[:, 3:4])
    pair = np.flatnonzero(rows[:, :, None] & columns[:, None, :])  # much faster than a 3-D nonzero
    part, pixel = np.divmod(pair, len(ys) * len(xs))
    row, column = np.divmod(pixel, len(xs))
    x, y = xs[column], ys[row]
    start = dot(parts.inverse, (eye - parts.origin)[:, None, :])  # (P, 3)
    steps = dot(parts.inverse[:, :, None, :], basis)  # (P, part axis, right/up/forward)
    direction = [steps[part, i, 2] + x * steps[part, i, 0] + y * steps[part, i, 1] for i in range(3)]
    depth = np.full((len(rows), len(ys) * len(xs)), np.inf, np.float32)
    origin = [start[part, i] for i in range(3)]
    depth.flat[pair] = intersect(parts, part, origin, direction)
    nearest = depth.argmin(axis=0)
    return depth[nearest, np.arange(depth.shape[1])], nearest


def in_shadow(parts: Parts, points: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """(N,) whether a part stands between each of `points` (N, 3) and a light far away.

    `basis` (3, 3) has two vectors across the light and the direction *to* the light as rows.
    """
    boxes = parallel_boxes(parts, basis)
    u, v = dot(points, basis[0]), dot(points, basis[1])
    inside = (u > boxes[:, 0:1]) & (u < boxes[:, 2:3]) & (v > boxes[:, 1:2]) & (v < boxes[:, 3:4])
    part, point = np.divmod(np.flatnonzero(inside), len(points))
    to_light = dot(parts.inverse, basis[2])
    offset, inverse = points[point] - parts.origin[part], parts.inverse[part]
    origin = [dot(inverse[:, i], offset) for i in range(3)]
    hit = intersect(parts, part, origin, [to_light[part, i] for i in range(3)])
    shadow = np.zeros(len(points), bool)
    shadow[point[np.isfinite(hit)]] = True
    return shadow


def surface(parts: Parts, index: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For surface `points` (N, 3) of the parts `index` (N,): part-space points and unit world normals (N, 3).

    The normal of a round cone points away from the centre, on its axis, of the sphere that touches there.
    """
    inverse = parts.inverse[index]
    local = dot(inverse, (points - parts.origin[index])[:, None, :])
    s = parts.slope[index]
    rho = np.sqrt(local[:, 0] ** 2 + local[:, 1] ** 2)
    centre = np.clip(local[:, 2] - rho * s / np.sqrt(1 - s * s), 0, parts.length[index])
    normal = local.copy()
    normal[:, 2] -= centre
    normal = dot(np.swapaxes(inverse, 1, 2), normal[:, None, :])
    return local, normal / np.sqrt(dot(normal, normal))[:, None]
