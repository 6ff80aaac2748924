"""One picture to look at: people as rows, views as columns."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fastreid.rendered.layouts import Image as PlannedImage
from fastreid.rendered.layouts import Plan
from fastreid.utils.file_io import atomic_write

CONTACT_SHEET = "contact_sheet.png"
MARGIN, HEADER, GAP = 44, 16, 8  # pixels: left of the rows, above the columns, between the views


def choose_images(
    plan: Plan, people: int, samples: int
) -> tuple[list[str], dict[int, dict[str, list[PlannedImage]]]]:
    """The views, and for the first `people` test identities up to `samples` images of each view.

    The images of a view go round its cameras, so that a row shows as many of them as it can.
    """
    views = list(plan.layout.seen_by)
    rows: dict[int, dict[str, list[PlannedImage]]] = {}
    for identity in list(plan.labels["test"])[:people]:
        images = [image for image in plan.images if image.sighting.identity == identity]
        images.sort(key=lambda image: (image.sighting.index, image.sighting.camera))
        rows[identity] = {
            view: [image for image in images if plan.layout.view_of(image.sighting.camera) == view][:samples]
            for view in views
        }
    return views, rows


def write_contact_sheet(
    plan: Plan, folder: Path, people: int = 6, samples: int = 4, cell_height: int = 112
) -> Path:
    """Paste written images of `plan` into ``folder/contact_sheet.png``, in 256 colours to keep it small."""
    views, rows = choose_images(plan, people, samples)
    height, width = cell_height, round(cell_height * plan.spec.size[1] / plan.spec.size[0])
    block = samples * width + GAP
    sheet = Image.new("RGB", (MARGIN + len(views) * block - GAP, HEADER + len(rows) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for column, view in enumerate(views):
        draw.text((MARGIN + column * block, 2), view, fill="black", font=font)
    for row, (identity, by_view) in enumerate(rows.items()):
        top = HEADER + row * height
        draw.text((2, top + height // 2 - 6), f"id {identity}", fill="black", font=font)
        for column, view in enumerate(views):
            for number, image in enumerate(by_view[view]):
                left = MARGIN + column * block + number * width
                with Image.open(folder / image.path) as picture:
                    sheet.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (left, top))
                label = plan.layout.cameras[image.sighting.camera][0]
                draw.text((left + 2, top + 1), label, "white", font, stroke_width=1, stroke_fill="black")
    with atomic_write(folder / CONTACT_SHEET) as file:
        _with_palette(sheet).save(file, "PNG", optimize=True)
    return folder / CONTACT_SHEET


def _with_palette(sheet: Image.Image) -> Image.Image:
    """`sheet` in its 256 best colours, found on a sixteenth of the pixels: all of them take seconds."""
    sample = sheet.resize((sheet.width // 4, sheet.height // 4), Image.Resampling.NEAREST)
    palette = sample.quantize(256, kmeans=1)
    return sheet.quantize(palette=palette, dither=Image.Dither.NONE)
