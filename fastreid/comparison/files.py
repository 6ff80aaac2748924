"""The files that a comparison reads of its trainings."""

from pathlib import Path
from typing import Any

from fastreid.utils.documents import parse_json
from fastreid.utils.errors import UserError

COST, EVALUATIONS = "cost.json", "evaluations.json"


def read_json(path: Path) -> Any:
    """Read a JSON file, or the objects of a file of JSON lines.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        lines = path.read_text().splitlines()
        return list(map(parse_json, lines)) if path.name == "metrics.json" else parse_json("".join(lines))
    except (OSError, ValueError) as error:
        again = path.name in (COST, EVALUATIONS)
        fix = "remove it: it is made again" if again else f"remove {path.parent} to train it again"
        raise UserError(f"{path} cannot be read: {error}", fix) from error
