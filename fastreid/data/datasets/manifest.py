"""The file that tells a rendered benchmark's folder from a real one's."""

from pathlib import Path

from fastreid.utils.documents import load_json
from fastreid.utils.errors import UserError

MANIFEST = "synthetic_manifest.json"
AUTHOR = "fastreid synthetic benchmark"


def read_manifest(folder: Path) -> dict | None:
    """The manifest of `folder`, or None without one. Raises `UserError` when it is not one of ours."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = load_json(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error})", f"move or delete {folder}") from error
    if not isinstance(manifest, dict) or manifest.get("author") != AUTHOR or "parameters" not in manifest:
        raise UserError(f"{path} is not a manifest of the benchmark writer", "choose another --root")
    return manifest
