"""The marks of camera and detector on a picture whose light has been computed."""

import io

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from fastreid.rendered.camera import Camera
from fastreid.rendered.surroundings import TILE, tile

OCCLUDED = 0.14  # share of the pictures with something in front of the person
OCCLUDER_TEXTURE = 1  # seed of the textures of what stands in front
JPEG_QUALITY = (62, 95)


def occlude(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cover part of `image` (H, W, 3) now and then: a wall or car from below, a pole, or a tree's crown."""
    if rng.random() >= OCCLUDED:
        return image
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = (y + 0.5) / height, (x + 0.5) / width
    kind = int(rng.integers(3))
    if kind == 0:
        mask = y > 1 - rng.uniform(0.12, 0.32) + 0.1 * (x - 0.5) * rng.uniform(-1, 1)
    elif kind == 1:
        mask = np.abs(x - rng.uniform(0.05, 0.95) + 0.1 * (y - 0.5)) < rng.uniform(0.04, 0.1)
    else:
        cy, cx = rng.uniform(0, 1), rng.choice([-0.05, 1.05])
        reach = rng.uniform(0.2, 0.42) + 0.12 * np.sin(9 * x + 14 * y + rng.uniform(0, 6))
        mask = ((y - cy) * 1.4) ** 2 + (x - cx) ** 2 < reach**2
    style = "hedge" if kind == 2 else str(rng.choice(["masonry", "asphalt", "bricks"]))
    texture = tile(style, OCCLUDER_TEXTURE)
    top, left = rng.integers(TILE, size=2)
    rows, columns = (np.arange(height) * 2 + top) % TILE, (np.arange(width) * 2 + left) % TILE
    image[mask] = texture[np.ix_(rows, columns)][mask] * np.float32(rng.uniform(0.4, 1.1))
    return image


def develop(
    image: np.ndarray, camera: Camera, exposure: float, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Blur, colour, noise and size of a picture: float (h, w, 3) radiance -> uint8 (H, W, 3)."""
    rows = image.shape[0]
    sigma = float(rng.uniform(0.25, 0.6)) * max(rows / 128, 0.75)
    image = gaussian_filter(image, (sigma, sigma * float(rng.uniform(0.8, 1.3)), 0), truncate=3)
    image = image * np.float32(np.array(camera.tint) * exposure)
    if camera.haze[1]:
        haze = float(rng.uniform(*camera.haze))
        image = image * (1 - haze) + np.float32(haze * 0.75)
    image += np.float32(camera.noise) * rng.standard_normal(image.shape, np.float32)
    picture = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    if picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def encode_jpeg(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """The JPEG file of a uint8 picture (H, W, 3), at a quality drawn at random."""
    buffer = io.BytesIO()
    low, high = JPEG_QUALITY
    Image.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(low, high + 1)))
    return buffer.getvalue()
