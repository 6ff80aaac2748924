"""The files that a comparison reads of its trainings."""

import json
from pathlib import Path
from typing import Any

from fastreid.utils.errors import UserError

COST = "cost.json"


def read_json(path: Path) -> Any:
    """Read a JSON file, or the objects of a file of JSON lines.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        lines = path.read_text().splitlines()
        return list(map(json.loads, lines)) if path.name == "metrics.json" else json.loads("".join(lines))
    except (OSError, ValueError) as error:
        problem = f"{path} cannot be read: {error}"
        raise UserError(problem, f"remove {path.parent} to train it again") from error
