"""Your own data: the CSV file of ``DATASETS.CSV``."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastreid.config import get_cfg
from fastreid.data import DATASET_REGISTRY, Sample, build_test_datasets, build_train_dataset, open_dataset
from fastreid.data.datasets.csv_file import number_names, parse_rows
from fastreid.utils.errors import UserError

HEADER = "path,pid,camid,view,split"
GOOD = [
    "a/0.png,7,0,drone,train",
    "a/1.png,7,3,cctv,train",
    "b/0.png,9,0,drone,query",
    "b/1.png,9,3,cctv,gallery",
    "b/2.png,-1,3,cctv,gallery",
]
IMAGES = [line.split(",")[0] for line in GOOD]


@pytest.fixture
def write_csv(image_tree):
    """Writes the lines as people.csv beside the good rows' images; returns its path."""

    def write(lines: list[str], encoding: str = "utf-8", end: str = "\n") -> Path:
        path = image_tree(IMAGES) / "people.csv"
        path.write_bytes(end.join(lines).encode(encoding))
        return path

    return write


def complaint(lines: list[str], write_csv, name: str = "CSVDataset", part: str = "train") -> str:
    """What opening and reading `part` of that file is refused with, from the file's name on."""
    path = write_csv(lines)
    with pytest.raises(UserError) as error:
        getattr(open_dataset(name, root="", csv=str(path)), part)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\n,,,,\n"])
def test_rows_become_samples_with_views_numbered_alphabetically(write_csv, encoding, end):
    path = write_csv([HEADER, *GOOD], encoding, end)
    dataset = open_dataset("CSVDataset", root="elsewhere", csv=str(path))
    folder = path.parent
    assert dataset.view_names == ("cctv", "drone")
    assert dataset.train == [Sample(f"{folder}/a/0.png", 7, 0, 1), Sample(f"{folder}/a/1.png", 7, 3, 0)]
    assert dataset.query == [Sample(f"{folder}/b/0.png", 9, 0, 1)]
    assert dataset.gallery == [Sample(f"{folder}/b/1.png", 9, 3, 0), Sample(f"{folder}/b/2.png", -1, 3, 0)]


class TestNames:
    LINES = (
        HEADER,
        "a/0.png,ann,gate 10,ground,train",
        "a/1.png,022,gate 9,ground,train",
        "b/0.png,3,9,drone,train",
        "b/1.png,7,9,drone,query",
        "b/2.png,-1,gate 9,ground,gallery",
    )

    @pytest.fixture
    def dataset(self, write_csv):
        return open_dataset("CSVDataset", root="", csv=str(write_csv(list(self.LINES))))

    def test_text_is_numbered_numbers_first_and_each_image_keeps_its_names(self, dataset):
        samples = [*dataset.train, *dataset.query, *dataset.gallery]
        assert [sample.pid for sample in samples] == [3, 2, 0, 1, -1]
        assert [sample.camid for sample in samples] == [1, 2, 0, 0, 2]
        names = [tuple(dataset.names_of(sample)) for sample in samples]
        assert names == [(*line.split(",")[1:4],) for line in self.LINES[1:]]

    def test_whole_numbers_stay_what_they_are_and_keep_their_zeros(self, write_csv):
        lines = [HEADER, "a/0.png,022,09,drone,train", "a/1.png,7,3,cctv,train"]
        dataset = open_dataset("CSVDataset", root="", csv=str(write_csv(lines)))
        assert [(sample.pid, sample.camid) for sample in dataset.train] == [(22, 9), (7, 3)]
        assert tuple(dataset.names_of(dataset.train[0])) == ("022", "09", "drone")

    def test_a_model_is_told_them(self, dataset):
        cfg = get_cfg()
        cfg.DATASETS.CSV, cfg.DATASETS.NAMES = dataset.table.source, ["CSVDataset"]
        names = build_train_dataset(cfg).names
        assert names.identities == ("3", "022", "ann")
        assert names.cameras == {0: "9", 1: "gate 10", 2: "gate 9"}

    @given(st.lists(st.from_regex(r"-?[0-9]{1,20}|[a-z]{1,3}", fullmatch=True), max_size=6))
    def test_every_name_has_a_number_of_its_own_unless_digits_alone_make_it(self, names):
        numbers = number_names(names)
        values = {name: value for name, value in numbers.items() if value >= 0}
        spellings = {name.lstrip("0") if name.isdecimal() else name for name in values}
        assert set(numbers) == set(names)
        assert len(set(values.values())) >= len(spellings)


def test_columns_stand_in_any_order_and_paths_may_be_absolute_or_written_with_backslashes(write_csv):
    folder = write_csv([]).parent
    lines = ["split,view,camid,pid,path", f"train,v,0,1,{folder}/a/0.png", r"train,v,0,1,a\1.png"]
    dataset = open_dataset("CSVDataset", root="", csv=str(write_csv(lines)))
    assert [sample.path for sample in dataset.train] == [f"{folder}/a/0.png", f"{folder}/a/1.png"]


def test_a_relative_csv_path_starts_from_the_working_directory(write_csv, monkeypatch):
    monkeypatch.chdir(write_csv([HEADER, *GOOD]).parent)
    assert open_dataset("CSVDataset", root="", csv="people.csv").train[0].path == "a/0.png"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "people.csv, line 1: column 'path' is missing; .* it has nothing"),
        (["path,pid,camera,view,split"], "line 1: column 'camid' is missing; .*'camera'"),
        ([HEADER.replace(",", ";")], "line 1: column 'path' is missing; .*separate the columns by commas"),
        ([HEADER + ",pid"], "line 1: column 'pid' is there 2 times"),
        ([HEADER], "line 1: the file lists no images below its header"),
        ([HEADER, GOOD[0], "a/1.png,7,0,drone"], "line 3: 4 cells, but the header has 5 columns"),
        ([HEADER, "", "a/1.png,7,0,drone,train,x"], "line 3: 6 cells"),
        ([HEADER, "a/1.png,7,0, ,train"], "line 2: the cell of column 'view' is empty"),
        ([HEADER, f"a/1.png,7,0,{'v' * 101},train"], "line 2: view has 101 characters; 100 are the most"),
        ([HEADER, ",7,0,drone,train"], "line 2: the cell of column 'path' is empty"),
        ([HEADER, *GOOD, "new.png,07,0,drone,train"], "line 7: pid '07' is '7' on line 2; write it in one"),
        ([HEADER, *GOOD, "new.png,8,00,drone,train"], "line 7: camid '00' is '0' on line 2; write it in one"),
        ([HEADER, "a/0.png,7,-1,drone,train"], "line 2: camid is -1; cameras have names, or numbers from 0"),
        ([HEADER, "a/0.png,-1,0,drone,train"], "line 2: pid is -1; negative ones are distractors"),
        ([HEADER, "a/0.png,7,0,drone,test"], "line 2: split is 'test'; allowed: train, query, gallery"),
        ([HEADER, "a/0.png,7,0,drone,galery"], "line 2: split is 'galery'.*Did you mean 'gallery'"),
        ([HEADER, 'a/0.png,"7"x,0,drone,train'], "line 2: not valid CSV"),
        ([HEADER, '"a/0.png,7,0,drone,train', GOOD[1]], "line 2: not valid CSV"),
        ([HEADER, *GOOD, "b/../a/0.png,7,0,drone,train"], "line 7: a/0.png is listed on line 2 already"),
        (
            [HEADER, *GOOD, "new.png,7,0,drone,gallery"],
            "line 7: pid 7 is in split gallery, .*train on line 2",
        ),
        (
            [HEADER, *GOOD, "new.png,8,3,drone,train"],
            "line 7: camid 3 has view 'drone', but 'cctv' on line 3",
        ),
        ([HEADER, *GOOD, "new.png,8,4,Drone,train"], "line 7: view 'Drone' is 'drone' on line 2"),
        ([HEADER, *GOOD, "c/no.png,8,0,drone,train"], "line 7: image not found: c/no.png .1 of the file's"),
        ([HEADER, *GOOD[2:]], "people.csv: no row has split train"),
        ([HEADER, GOOD[0], *GOOD[2:]], "line 4: view 'cctv' has no training images"),
        ([HEADER + ",protocol", GOOD[0] + ",X"], "line 2: a training image under protocol 'X'"),
        ([HEADER + ",protocol", GOOD[2] + ",a/b"], "line 2: protocol is 'a/b'; use letters"),
        ([HEADER + ",protocol", GOOD[2] + ",X", GOOD[2] + ",X"], "line 3: b/0.png is listed on line 2"),
        ([HEADER + ",protocol", GOOD[2] + ",", GOOD[2] + ",X"], "line 3: b/0.png is listed on line 2"),
        ([HEADER + ",protocol", GOOD[2] + ",X", "b/0.png,8,0,drone,query,Y"], "line 3: b/0.png has another"),
    ],
)
def test_a_mistake_is_named_by_file_and_line(lines, said, write_csv):
    message = complaint(lines, write_csv)
    assert message.startswith("people.csv")
    assert re.search(said, message), message


@pytest.mark.parametrize("part", ["query", "gallery"])
def test_a_split_without_rows_is_named(write_csv, part):
    lines = [HEADER, *(line for line in GOOD if not line.endswith(part))]
    assert f"0 {part}" in complaint(lines, write_csv, part=part)


def test_text_in_another_encoding_is_named_with_its_line(write_csv):
    path = write_csv([HEADER, GOOD[0], "m\u00fcller/0.png,7,0,drone,train"], encoding="latin-1")
    with pytest.raises(
        UserError, match=r"people.csv, line 3: not UTF-8 text .*save the file as CSV in UTF-8"
    ):
        open_dataset("CSVDataset", root="", csv=str(path))
    with pytest.raises(UserError, match=r"people.csv, line 1: not UTF-8 text"):
        open_dataset("CSVDataset", root="", csv=str(write_csv([HEADER, *GOOD], encoding="utf-16")))


def test_a_missing_file_and_a_missing_setting_are_named(tmp_path):
    with pytest.raises(UserError, match="DATASETS.CSV: cannot read .*none.csv: No such file"):
        open_dataset("CSVDataset", root="", csv=str(tmp_path / "none.csv"))
    with pytest.raises(UserError, match="DATASETS.CSV is empty"):
        open_dataset("CSVDataset", root="")


def test_columns_that_are_not_used_are_told_once(write_csv, caplog):
    path = write_csv([HEADER + ",protocl", *(line + ",x" for line in GOOD)])
    for name in ("CSVDataset", "CSVDataset"):
        assert len(open_dataset(name, root="", csv=str(path)).train) == 2
    assert caplog.text.count("columns 'protocl' are not used. Did you mean 'protocol'?") == 1


def test_a_changed_file_is_read_again(write_csv):
    first = open_dataset("CSVDataset", root="", csv=str(write_csv([HEADER, *GOOD])))
    second = open_dataset("CSVDataset", root="", csv=str(write_csv([HEADER, *GOOD[:-1]])))
    assert (len(first.gallery), len(second.gallery)) == (2, 1)


class TestProtocols:
    LINES = [
        HEADER + ",protocol",
        *(line + "," for line in GOOD[:2]),
        GOOD[2] + ",D2C",
        GOOD[3] + ",D2C",
        "b/1.png,9,3,cctv,query,C2D",
        "b/0.png,9,0,drone,gallery,C2D",
        GOOD[4] + ",",
    ]

    @pytest.mark.parametrize(
        ("name", "query", "gallery"),
        [
            ("CSVDataset_D2C", ["b/0.png"], ["b/1.png", "b/2.png"]),
            ("CSVDataset_C2D", ["b/1.png"], ["b/0.png", "b/2.png"]),
            ("CSVDataset", ["b/0.png", "b/1.png"], ["b/1.png", "b/0.png", "b/2.png"]),
        ],
    )
    def test_each_has_its_rows_and_those_without_a_protocol(self, write_csv, name, query, gallery):
        path = write_csv(self.LINES)
        dataset = open_dataset(name, root="", csv=str(path))
        assert dataset.name == name
        for found, expected in ((dataset.query, query), (dataset.gallery, gallery)):
            assert [sample.path for sample in found] == [f"{path.parent}/{image}" for image in expected]
        assert len(dataset.train) == 2

    def test_an_unknown_one_is_told_the_known_ones(self, write_csv):
        message = complaint(self.LINES, write_csv, "CSVDataset_D2")
        assert message.endswith("Did you mean 'D2C'? Its protocols: C2D, D2C")

    def test_their_names_are_known_before_the_file_is_read(self):
        DATASET_REGISTRY.check("CSVDataset_D2C")
        with pytest.raises(UserError, match="unknown dataset 'CSVData_D2C' in DATASETS"):
            DATASET_REGISTRY.check("CSVData_D2C")

    def test_training_and_evaluation_take_the_names_from_the_configuration(self, write_csv):
        cfg = get_cfg()
        cfg.DATASETS.CSV = str(write_csv(self.LINES))
        cfg.DATASETS.NAMES = ["CSVDataset"]
        cfg.DATASETS.TESTS = ["CSVDataset_D2C", "CSVDataset_C2D"]
        assert build_train_dataset(cfg).names.views == ("cctv", "drone")
        assert [dataset.name for dataset in build_test_datasets(cfg)] == cfg.DATASETS.TESTS


words = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\."), min_size=1, max_size=8
).filter(lambda word: word == word.strip())
numbers = st.integers(0, 10**18 - 1).map(str) | words
rows = st.tuples(words, numbers, numbers, words, st.sampled_from(["train", "query", "gallery"]))


@given(
    table=st.lists(rows, min_size=1),
    order=st.permutations(range(5)),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    spaces=st.sampled_from(["", " "]),
)
def test_what_a_csv_writer_writes_is_read_back(table, order, quoting, end, spaces):
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting, lineterminator=end)
    for cells in [HEADER.split(","), *table]:
        padded = [cells[0], *(f"{cell}{spaces}" for cell in cells[1:])]
        writer.writerow([padded[column] for column in order])
    read = parse_rows(text.getvalue(), "people.csv", "folder")
    assert [(row.path, row.pid, row.camid, row.view, row.split) for row in read] == [
        (f"folder/{path}", *labels) for path, *labels in table
    ]
    assert [row.line for row in read] == list(range(2, len(table) + 2))


@given(st.text(alphabet=st.sampled_from('ab01-,;"\r\n \x00\ufeff') | st.characters()))
def test_any_text_is_read_or_refused_with_its_line(text):
    complaint = ""
    try:
        parse_rows(f"{HEADER}\n{text}", "people.csv")
    except UserError as error:
        complaint = str(error)
    assert not complaint or complaint.startswith("people.csv, line ")
