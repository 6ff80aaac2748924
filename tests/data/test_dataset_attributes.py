"""The attribute files of AG-ReID v1 and v2."""

import numpy as np
import pytest
from scipy.io import savemat

from fastreid.data import DATASET_REGISTRY
from fastreid.utils.errors import UserError

FILES = {"AG_ReID_v1": "qut_attribute_v4_88_attributes.mat", "AG_ReID_v2": "qut_attribute_v8.mat"}


def cell(values: list[str]) -> np.ndarray:
    """A MATLAB cell array of strings."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize("name", ["AG_ReID_v1", "AG_ReID_v1_AG", "AG_ReID_v2", "AG_ReID_v2_WA"])
@pytest.mark.parametrize("as_numbers", [False, True])
@pytest.mark.parametrize("orientation", ["row", "column"])
def test_attributes_are_read_by_person(tmp_path, name, as_numbers, orientation):
    benchmark = name[:10]
    pids = {"train": [6021400, 7021410, 8021400], "test": [9021402]}
    values = {"train": ([1, 2, 1], [2, 2, 1]), "test": ([2], [1])}
    struct = {
        split: {
            "gender": np.array(values[split][0], dtype=np.uint8),
            "hat": np.array(values[split][1], dtype=np.float64),
            "image_index": np.array(ids, float) if as_numbers else cell([f"{pid:010}" for pid in ids]),
        }
        for split, ids in pids.items()
    }
    (tmp_path / benchmark).mkdir()
    savemat(tmp_path / benchmark / FILES[benchmark], {"qut_attribute": struct}, oned_as=orientation)
    assert DATASET_REGISTRY.get(name)(root=str(tmp_path)).attributes == {
        6021400: {"gender": 1, "hat": 2},
        7021410: {"gender": 2, "hat": 2},
        8021400: {"gender": 1, "hat": 1},
        9021402: {"gender": 2, "hat": 1},
    }


def test_a_missing_file_is_a_warning_once(tmp_path, caplog):
    for name in ("AG_ReID_v2", "AG_ReID_v2_AC"):
        assert DATASET_REGISTRY.get(name)(root=str(tmp_path)).attributes is None
    assert caplog.text.count("no attribute file") == 1
    assert FILES["AG_ReID_v2"] in caplog.text


def test_a_benchmark_without_attributes_has_none(tmp_path, caplog):
    assert DATASET_REGISTRY.get("CARGO")(root=str(tmp_path)).attributes is None
    assert caplog.text == ""


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "AG_ReID_v1" / FILES["AG_ReID_v1"]
    path.parent.mkdir()
    for content in ({"something": 1}, {"qut_attribute": {"train": {"hat": [1], "image_index": [1, 2]}}}):
        savemat(path, content)
        with pytest.raises(UserError, match="is not an attribute file"):
            _ = DATASET_REGISTRY.get("AG_ReID_v1")(root=str(tmp_path)).attributes
    path.write_bytes(b"text")
    with pytest.raises(UserError, match="is not an attribute file"):
        _ = DATASET_REGISTRY.get("AG_ReID_v1")(root=str(tmp_path)).attributes
