"""The formats of image files that are read: the one list, by PIL's names of them."""

from functools import cache
from itertools import chain

from PIL import Image

FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
    "PPM": (".ppm", ".pgm"),
}
"""None of them has a decoder that runs another program, as PIL's of EPS does."""

IMAGE_SUFFIXES = tuple(chain.from_iterable(FORMATS.values()))
SUFFIXES_IN_WORDS = f"{', '.join(IMAGE_SUFFIXES[:-1])} or {IMAGE_SUFFIXES[-1]}"


def is_image_name(name: str) -> bool:
    """Tell whether a file of this name is read as an image; hidden files (``._0001.jpg``) are not."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


@cache
def readable_formats() -> tuple[str, ...]:
    """Return those that PIL can read here: of AVIF older versions have no decoder."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
