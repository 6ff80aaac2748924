"""Damaged folders of features: the features and names that were written, or one error; never other ones."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile import changes, fuzz, places, refused, replaced
from hypothesis import given
from hypothesis import strategies as st

from fastreid.deploy.feature_files import FeatureSet
from fastreid.deploy.image_lists import csv_text, read_columns
from fastreid.deploy.search import build_index
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import sha256_of, write_json

COUNT, WIDTH, SHARD = 7, 5, 4
MATRIX = np.random.default_rng(0).normal(size=(COUNT, WIDTH)).astype(np.float32)
COLUMNS = {"path": [f"caf\udce9/{row}.jpg" for row in range(COUNT)], "pid": list(range(COUNT))}


def write(folder: Path, file_format: str) -> Path:
    """Leave behind what an extraction does."""
    folder.mkdir()
    (folder / "images.csv").write_bytes(csv_text(COLUMNS))
    facts = {"checkpoint": {"path": "model.pth", "sha256": "0" * 64}, "config": {}, "parts": ["person"]}
    facts |= {"images": COUNT, "width": WIDTH, "images_sha256": sha256_of(folder / "images.csv")}
    features = FeatureSet(folder, facts | {"format": file_format, "shard_size": SHARD, "method": "ViT"})
    write_json(folder / "features.json", features.facts)
    for number in range(features.num_shards):
        features.write_shard(number, MATRIX[features.rows(number)], COLUMNS)
    return folder


@pytest.fixture(scope="module", params=["npy", "npz"])
def sound(request, tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("features") / request.param, request.param)


@pytest.fixture
def damaged(sound, tmp_path):
    """`damaged()` gives a fresh copy of the folder."""

    def copy() -> Path:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        return shutil.copytree(sound, tmp_path / "copy")

    return copy


def read(folder: Path) -> None:
    """Read all; what is read must be what was written."""
    features = FeatureSet.open(folder)
    columns, matrix = features.columns(), features.load()
    assert columns == COLUMNS
    assert np.array_equal(matrix, MATRIX)


def test_a_sound_folder_is_read(sound):
    read(sound)


@fuzz
@given(data=st.data())
def test_facts_with_other_values(damaged, data):
    folder = damaged()
    facts = json.loads((folder / "features.json").read_text())
    facts = replaced(facts, data.draw(st.sampled_from(places(facts))), data.draw(changes))
    (folder / "features.json").write_text(json.dumps(facts, default=str))
    refused(lambda: read(folder))


@fuzz
@given(
    name=st.sampled_from(["features.json", "images.csv", "features_00000", "features_00001"]), data=st.data()
)
def test_files_with_other_bytes(damaged, name, data):
    folder = damaged()
    (path,) = folder.glob(f"{name}*")
    content = path.read_bytes()
    place = data.draw(st.integers(0, min(len(content), 400)))
    cut = data.draw(st.sampled_from([0, 1, 5, 10**6]))
    path.write_bytes(content[:place] + data.draw(st.binary(max_size=6)) + content[place + cut :])
    try:
        said = refused(lambda: read(folder))
    except AssertionError:  # the numbers of an npy have no checksum
        assert path.suffix == ".npy"
        assert place + cut > 100
    else:
        assert said or path.read_bytes() == content or path.suffix != ".csv"


def array(matrix: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, matrix)
    return file.getvalue()


def archive(content: bytes, name: str = "features.npy") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr(name, content)
    return file.getvalue()


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


FIRST = MATRIX[:SHARD]
SHARDS = {
    "nothing": b"",
    "another shape": array(FIRST[:, :3]),
    "fractions of 64 bits": array(FIRST.astype(np.float64)),
    "integers": array(FIRST.astype(np.int32)),
    "Python objects": b"\x93NUMPY\x01\x00" + header("(4, 5)", "|O")[8:] + b"cos\nsystem\n",
    "too large to be there": header("(4, 100000000000)"),
    "a shape without end": header("(" * 60 + "4" + ")" * 60),
    "no shape": header("(-4, -5)"),
    "a cut array": array(FIRST)[:-1],
    "a longer array": array(FIRST) + b"x",
    "an archive": archive(array(FIRST)),
    "an archive of other things": archive(array(FIRST), "other.npy"),
    "a bomb": archive(bytes(5_000_000)),
    "a bomb with a header": archive(header("(4, 5)") + bytes(5_000_000)),
    "a version to come": b"\x93NUMPY\x09\x00" + array(FIRST)[8:],
}


@pytest.mark.parametrize("content", SHARDS.values(), ids=SHARDS)
def test_a_shard_that_is_none_is_found_when_the_folder_is_opened(damaged, content):
    folder = damaged()
    (path,) = folder.glob("features_00000.*")
    if path.suffix == ".npz" and content == SHARDS["an archive"]:
        content = array(FIRST)  # mixed up the other way round
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path.name} .*delete it and run the extraction again"):
        FeatureSet.open(folder)


def change_facts(folder: Path, **facts: object) -> None:
    before = json.loads((folder / "features.json").read_text())
    (folder / "features.json").write_text(json.dumps(before | facts))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"shard_size": 0}, "shard_size is '0', expected a number from 1 on"),
        ({"shard_size": 1, "images": 10**11}, "is not the table"),
        ({"images": -1}, "images is '-1'"),
        ({"images": 3}, "lists 7 pictures, but there are features of 3"),
        ({"images": True}, "images is 'True'"),
        ({"width": 1e400}, "width is 'inf'"),
        ({"format": "npy/../x"}, "format is .*expected npy or npz"),
        ({"checkpoint": None}, "checkpoint is 'None'"),
        ({"parts": "person"}, "parts is 'person', expected a list"),
        ({"images_sha256": "1" * 64}, "is not the table that the features .* were made of"),
    ],
)
def test_facts_that_are_not_true_are_named(damaged, facts, said):
    folder = damaged()
    if facts.get("images") == 3:  # all else is as 3 pictures have it
        for number in (0, 1):
            next(folder.glob(f"features_0000{number}.*")).unlink()
        features = FeatureSet(folder, json.loads((folder / "features.json").read_text()) | facts)
        features.write_shard(0, MATRIX[:3], COLUMNS)
    change_facts(folder, **facts)
    with pytest.raises(UserError, match=said):
        read(folder)


def test_the_facts_may_nest_as_deeply_as_they_want(damaged):
    folder = damaged()
    (folder / "features.json").write_text('{"config":' * 5000 + "1" + "}" * 5000)
    with pytest.raises(UserError, match="no features in .*not readable"):
        FeatureSet.open(folder)


def test_reversed_lines_of_the_table_would_give_every_picture_another_name(damaged):
    folder = damaged()
    first, *lines = (folder / "images.csv").read_bytes().splitlines(keepends=True)
    (folder / "images.csv").write_bytes(b"".join([first, *reversed(lines)]))
    assert read_columns(folder / "images.csv")["pid"] == COLUMNS["pid"][::-1]
    with pytest.raises(UserError, match="images.csv is not the table that the features in .* were made of"):
        FeatureSet.open(folder)


def test_an_index_is_built_of_the_lines_that_there_are(damaged, tmp_path):
    index = build_index(FeatureSet.open(damaged()), tmp_path / "index", "exact")
    assert len(index) == COUNT
