"""The attribute file of AG-ReID v1 and v2, in the form of the published one."""

import io

import numpy as np
from scipy.io import savemat

from fastreid.rendered.person import ATTRIBUTE_NAMES, Person, attributes_of

_HEADER_LENGTH = 116  # bytes of free text at the start of a MAT-file, version 5


def _split_struct(people: list[Person], labels: list[str]) -> dict[str, np.ndarray]:
    values = [attributes_of(person) for person in people]
    struct = {name: np.array([value[name] for value in values], np.uint8) for name in ATTRIBUTE_NAMES}
    index = np.empty(len(labels), object)
    index[:] = ["".join(character for character in label if character.isdigit()) for label in labels]
    return {**struct, "image_index": index}


def attribute_file(splits: dict[str, tuple[list[Person], list[str]]]) -> bytes:
    """The bytes of a MATLAB v5 file with the struct `qut_attribute` (fields `train` and `test`).

    Each split is (people, their labels): it becomes 88 vectors with one value an identity, 2 where the
    person has the attribute and 1 where not, and `image_index`, a cell of the digits of the labels.
    """
    buffer = io.BytesIO()
    struct = {name: _split_struct(*split) for name, split in splits.items()}
    savemat(buffer, {"qut_attribute": struct}, oned_as="row")
    header = b"MATLAB 5.0 MAT-file, synthetic aerial-ground benchmark"  # scipy's own has the time of day
    return header.ljust(_HEADER_LENGTH) + buffer.getvalue()[_HEADER_LENGTH:]
