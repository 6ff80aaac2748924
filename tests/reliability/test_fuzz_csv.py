"""Damaged CSV files and lists of pictures: the rows that stand there, or one error that names the file."""

import csv
import io
from pathlib import Path

import pytest
from hostile import fuzz, numbers, refused, texts
from hypothesis import example, given
from hypothesis import strategies as st

from fastreid.data.datasets.csv_dataset import CSVDataset
from fastreid.data.datasets.csv_file import COLUMNS, read_table
from fastreid.data.person_folders import Crops, csv_bytes, split_persons
from fastreid.deploy.image_lists import csv_text, list_file, read_columns, write_columns
from fastreid.utils.errors import UserError

PICTURES = [f"p{pid}/{camid}_{index}.png" for pid in range(4) for camid in range(2) for index in range(2)]
ROWS = [
    {
        "path": path,
        "pid": path[1],
        "camid": path[3],
        "view": "aerial" if path[3] == "0" else "ground",
        "split": "train" if path[1] in "01" else "query" if path[5] == "0" else "gallery",
    }
    for path in PICTURES
]
cells = texts | numbers.map(lambda number: "9" * 5000 if abs(number) > 1e300 else str(number))


def content_of(rows: list[dict[str, str]], columns=COLUMNS) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


SOUND = content_of(ROWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for path in PICTURES:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    return folder


@pytest.fixture
def read(folder):
    """`read(content)` reads a CSV file of that content in all ways; the first error, or nothing."""
    path = folder / "some.csv"

    def run(content: bytes) -> str:
        path.write_bytes(content)

        def dataset() -> None:
            table = read_table(str(path))
            found = CSVDataset(csv=str(path), table=table)
            assert len({row.path for row in table.rows}) >= len(found.train)
            assert {row.split for row in table.rows} <= {"train", "query", "gallery"}

        said = refused(dataset)
        assert not said or "some.csv" in said or "CSV" in said or "cannot read folder" in said
        refused(lambda: list_file(str(path)))
        refused(lambda: read_columns(path))
        return said

    return run


def test_a_sound_file_is_read(read):
    assert not read(SOUND)


@fuzz
@given(place=st.integers(0, len(SOUND)), cut=st.integers(0, 30), inserted=st.binary(max_size=9) | texts)
def test_other_bytes_are_rows_or_one_error(read, place, cut, inserted):
    inserted = inserted.encode("utf-8", "surrogatepass") if isinstance(inserted, str) else inserted
    read(SOUND[:place] + inserted + SOUND[place + cut :])


@fuzz
@given(row=st.integers(0, len(ROWS) - 1), column=st.sampled_from(COLUMNS), cell=cells)
@example(row=0, column="pid", cell="9" * 5000)
@example(row=0, column="camid", cell="--5")
def test_another_cell_is_read_or_one_error(read, row, column, cell):
    rows = [dict(each) for each in ROWS]
    rows[row][column] = cell
    read(content_of(rows))


@fuzz
@given(columns=st.permutations(COLUMNS), left_out=st.integers(0, 2), rows=st.integers(0, 3))
def test_columns_in_any_order_are_read_and_missing_ones_named(read, columns, left_out, rows):
    said = read(content_of(ROWS if not left_out else ROWS[:rows], columns[left_out:]))
    assert bool(said) == bool(left_out)
    assert not left_out or any(f"column {name!r} is missing" in said for name in columns[:left_out])


@fuzz
@given(st.lists(st.text(st.characters(blacklist_characters="\0"), max_size=6), min_size=1, max_size=4))
def test_a_table_that_is_written_comes_back(tmp_path, names):
    columns = {"path": names, "row": [str(row) for row in range(len(names))]}
    if refused_text(columns):
        return
    write_columns(tmp_path / "table.csv", columns)
    assert read_columns(tmp_path / "table.csv") == columns


def refused_text(columns) -> bool:
    """Surrogates that no file name has cannot be written."""
    try:
        csv_text(columns)
    except UnicodeEncodeError:
        return True
    return False


def test_the_crops_of_a_folder_make_a_file_that_is_read(folder, read):
    crops = Crops(["pid"], "^(?P<view>[0-9])_").scan(str(folder))
    rows = split_persons(crops, 0.5, 1, 0)
    assert not read(csv_bytes(rows, str(folder)))


def test_a_device_is_no_list(tmp_path):
    with pytest.raises(UserError, match="DATASETS.CSV: cannot read /dev/zero: it is no file"):
        read_table("/dev/zero")
