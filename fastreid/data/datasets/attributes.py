"""Person attributes of AG-ReID v1 and v2 (``qut_attribute_*.mat``)."""

import os
from typing import Any

import numpy as np

from fastreid.utils.errors import UserError
from fastreid.utils.logger import warn_once


def read_attributes(path: str) -> dict[int, dict[str, int]] | None:
    """Read a MATLAB v5 file with the struct ``qut_attribute`` of ``train`` and ``test``.

    Each of the two holds ``image_index`` (the person ids, as text or numbers) and one vector of the same
    length (values 1 or 2) for each attribute.

    Returns:
        ``{pid: {attribute: value}}`` over both splits, or None, with a warning, if there is no such file.

    Raises:
        UserError: if the file is not what is described above.
    """
    from scipy.io import loadmat

    if not os.path.isfile(path):
        warn_once(__name__, f"no attribute file {path}: the attributes are not available (training is)")
        return None
    try:
        splits = loadmat(path, simplify_cells=True)["qut_attribute"]
        return _table(splits["train"]) | _table(splits["test"])
    except Exception as error:
        raise UserError(
            f"{path} is not an attribute file: expected a MATLAB v5 struct qut_attribute with train and test,"
            f" found {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


def _table(split: dict[str, Any]) -> dict[int, dict[str, int]]:
    pids = [int(pid) for pid in np.atleast_1d(split["image_index"]).ravel()]
    columns = {
        name: np.atleast_1d(values).ravel().tolist()
        for name, values in split.items()
        if name != "image_index"
    }
    return {
        pid: dict(zip(columns, map(int, row), strict=True))
        for pid, *row in zip(pids, *columns.values(), strict=True)
    }
