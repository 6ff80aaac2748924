"""CARGO in miniature: noise in its layout, for what does not look at the pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

CAMERAS = (1, 3, 6, 13)  # two aerial, two ground
SPLITS = {"train": (range(10, 16), 2), "query": (range(20, 23), 1), "gallery": (range(20, 23), 2)}


def write_noise(root: Path) -> Path:
    """Write 6 training identities, 2 pictures in each camera, and 3 test identities; return `root`."""
    rng = np.random.default_rng(0)
    for split, (pids, images) in SPLITS.items():
        for camera in CAMERAS:
            folder = root / "CARGO" / split / f"Cam{camera}"
            folder.mkdir(parents=True)
            for pid in pids:
                for index in range(images):
                    pixels = rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"Cam{camera}_day_{pid}_{index}.jpg")
    return root
