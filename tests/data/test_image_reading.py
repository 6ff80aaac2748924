"""Reading image files: whatever the format, RGB and upright, or an error that names the file."""

import io
import os
import struct
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid.data import read_image
from fastreid.data.bad_images import check_image_files
from fastreid.data.formats import FORMATS, is_image_name, readable_formats
from fastreid.utils.errors import UserError


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A smooth 24 x 40 (height x width) colour picture, so that JPEG compression changes little."""
    y, x = np.mgrid[0:24, 0:40]
    return Image.fromarray(np.stack([y * 10, x * 6, 255 - x * 3 - y * 4], axis=-1).astype(np.uint8))


def as_array(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "jpg"),
        ("RGB", "png"),
        ("RGB", "bmp"),
        ("L", "jpg"),
        ("L", "png"),
        ("LA", "png"),
        ("CMYK", "jpg"),
        ("RGBA", "png"),
        ("P", "png"),
        ("1", "png"),
    ],
)
def test_every_colour_mode_becomes_rgb(tmp_path, picture, mode, suffix):
    stored = picture.convert(mode)
    expected = np.asarray(stored.convert("RGB")).astype(int)
    path = tmp_path / f"image.{suffix}"
    stored.save(path, **({"quality": 95} if suffix == "jpg" else {}))
    image = read_image(str(path))
    assert image.dtype == torch.uint8
    assert image.shape == (3, 24, 40)
    assert np.abs(as_array(image) - expected).mean() < (4 if suffix == "jpg" else 1e-9)


def test_transparency_is_dropped(tmp_path, picture):
    transparent = picture.convert("RGBA")
    transparent.putalpha(0)
    transparent.save(tmp_path / "image.png")
    assert (as_array(read_image(str(tmp_path / "image.png"))) == np.asarray(picture)).all()


def test_sixteen_bits_become_eight(tmp_path):
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "image.png")
    image = read_image(str(tmp_path / "image.png"))
    assert (image == torch.from_numpy((values // 256).astype(np.uint8))).all()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    ("orientation", "restore"),  # how a viewer turns the stored pixels
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, picture, suffix, orientation, restore):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{suffix}"
    picture.save(path, exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
    expected = restore(np.asarray(picture).astype(int))
    image = as_array(read_image(str(path)))
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < 4


def test_one_pixel_is_an_image(tmp_path):
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "image.png")
    assert read_image(str(tmp_path / "image.png")).flatten().tolist() == [9, 8, 7]


def test_a_large_jpeg_is_decoded_smaller_but_not_below_the_size_asked_for(tmp_path, picture):
    path = str(tmp_path / "large.jpg")
    picture.resize((2000, 1200), Image.Resampling.BICUBIC).save(path)
    small = read_image(path, (128, 64))
    assert small.shape == (3, 150, 250)  # an eighth
    full = torch.nn.functional.avg_pool2d(read_image(path).float(), 8)
    assert (small.float() - full).abs().mean() < 2
    assert read_image(path, (700, 100)).shape == (3, 1200, 2000)


def test_a_large_jpeg_on_its_side_is_decoded_not_below_the_size_of_the_upright_picture(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.resize((512, 256)).save(tmp_path / "side.jpg", exif=exif)
    assert read_image(str(tmp_path / "side.jpg"), (256, 128)).shape == (3, 256, 128)
    assert read_image(str(tmp_path / "side.jpg"), (256, 130)).shape == (3, 512, 256)


@pytest.mark.parametrize(("orientation", "kind"), [(9, 3), (0, 3), (6, 2), (6, 7)])  # SHORT, ASCII, UNDEFINED
def test_an_orientation_that_says_nothing_changes_nothing(tmp_path, picture, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = exif.tobytes()
    order = ">" if b"MM" in content[:8] else "<"
    entry = content.index(struct.pack(f"{order}HH", 0x0112, 3)) + 2
    content = content[:entry] + struct.pack(f"{order}H", kind) + content[entry + 2 :]
    picture.resize((512, 256)).save(tmp_path / "odd.jpg", exif=content)
    assert read_image(str(tmp_path / "odd.jpg"), (256, 128)).shape == (3, 256, 512)


@pytest.mark.parametrize("kept", [1, 20, 200, -40, -1])
def test_a_truncated_file_is_named(tmp_path, picture, kept):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    path = tmp_path / "cut.jpg"
    path.write_bytes(buffer.getvalue()[:kept])
    with pytest.raises(UserError, match=r"^cannot read image .*cut\.jpg: ") as error:
        read_image(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("format_name", "suffix"), [(n, s) for n, own in FORMATS.items() for s in own])
def test_every_format_of_the_list_is_read(tmp_path, picture, format_name, suffix):
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}, "AVIF": {"quality": 95}}
    if format_name not in readable_formats():
        pytest.skip(f"this PIL reads no {format_name}")
    path = tmp_path / f"image{suffix.upper()}"
    picture.save(path, format_name, **lossless.get(format_name, {}))
    assert is_image_name(path.name)
    assert np.abs(as_array(read_image(str(path))) - np.asarray(picture).astype(int)).mean() < 6


def test_a_file_of_another_format_is_refused_and_starts_no_program(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)  # PIL gives PostScript to Ghostscript
    path = tmp_path / "script.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match=r"cannot read image .*script\.jpg: cannot identify"):
        read_image(str(path))


def test_fifos_devices_and_folders_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    paths = [str(tmp_path / f"{kind}.jpg") for kind in ("fifo", "device", "folder")]
    for path in paths:
        with pytest.raises(UserError, match="it is a folder, a FIFO or a device, not a file; restore"):
            read_image(path)
    with pytest.raises(UserError, match="3 of the 3 images of here are missing or empty .* or no files"):
        check_image_files(paths, "here", may_skip=False)


def test_missing_empty_and_foreign_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"image file not found: .*none\.jpg"):
        read_image(str(tmp_path / "none.jpg"))
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UserError, match=r"empty\.jpg: it is empty \(0 bytes\)"):
        read_image(str(tmp_path / "empty.jpg"))
    (tmp_path / "text.jpg").write_text("no image at all\n" * 20)
    with pytest.raises(UserError, match=r"cannot read image .*text\.jpg: cannot identify"):
        read_image(str(tmp_path / "text.jpg"))
