"""Templates, style and scripts of the package put together as one HTML file that needs nothing else."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, named_output

SCRIPTS = ("theme.js", "protocol.js", "viewer.js", "charts.js", "rank_lists.js")
PAGE_BYTES = 20_000_000  # no page is larger


def render_page(template: str, data: dict[str, Any], **values: Any) -> bytes:
    """Return a page as it stands in its file.

    Args:
        template: a file of ``page/`` that extends ``base.html``.
        data: what the scripts read, JSON.
        values: what the template reads.
    """
    page_files = files("fastreid.visualization") / "page"
    environment = Environment(
        loader=PackageLoader("fastreid.visualization", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = signed
    content = environment.get_template(template).render(
        style=Markup((page_files / "style.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((page_files / name).read_text(encoding="utf-8") for name in SCRIPTS)),
        data=Markup(_json_for_script(data)),
        **values,
    )
    return content.encode("utf-8", "replace")  # file names need not be valid text


def write_page(path: str | Path, template: str, data: dict[str, Any], **values: Any) -> None:
    """Write what `render_page` gives, atomically; the file's folder is made.

    Raises:
        UserError: if it would be larger than `PAGE_BYTES`, or cannot be written.
    """
    encoded = render_page(template, data, **values)
    if len(encoded) > PAGE_BYTES:
        raise UserError(
            f"{path} would have {len(encoded) / 1e6:.1f} MB, and {PAGE_BYTES / 1e6:.0f} are the most",
            "name fewer protocols in DATASETS.TESTS, or fewer methods",
        )
    with named_output(path), atomic_write(path) as file:
        file.write(encoded)


def signed(value: float) -> str:
    """Write a difference with its sign."""
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _json_for_script(data: dict[str, Any]) -> str:
    """JSON that no text in it can end the script element with."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
