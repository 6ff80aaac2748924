"""tools/make_csv.py: from a folder of person crops to a CSV file that trains."""

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastreid.cli import make_csv as program
from fastreid.data import open_dataset
from fastreid.data.person_folders import Crops, choose_queries
from fastreid.utils.errors import UserError

PERSONS = [f"p{number:02}" for number in range(10)]
CROPS = [
    f"crops/{pid}/{view}/cam{camera}_{frame}.png"
    for pid in PERSONS
    for view, cameras in (("drone", (1,)), ("cctv", (1, 2)))
    for camera in cameras
    for frame in range(2)
]
OPTIONS = ("--levels", "pid/view", "--names", r"cam(?P<camera>\d+)_")


@pytest.fixture(scope="module")
def make_csv():
    return lambda *argv: program.main(list(map(str, argv)))


@pytest.fixture
def refusal(make_csv, capsys):
    """What the tool says as it refuses those arguments."""

    def refuse(*argv) -> str:
        with pytest.raises(SystemExit) as stopped:
            make_csv(*argv)
        assert stopped.value.code == 2
        return capsys.readouterr().err

    return refuse


def test_folders_become_a_file_that_reads_back(make_csv, image_tree, tmp_path, capsys):
    image_tree(CROPS)
    output = tmp_path / "lists" / "people.csv"
    make_csv(tmp_path / "crops", "--output", output, *OPTIONS, "--train-share", "0.6")
    data = open_dataset("CSVDataset", root="", csv=str(output))
    assert data.view_names == ("cctv", "drone")
    assert len({sample.pid for sample in data.train}) == 6
    assert len(data.train) == 6 * 6
    assert (len(data.query), len(data.gallery)) == (4 * 3, 4 * 3)
    # camera 1 of the drone is another camera than camera 1 of the CCTV
    assert {(s.camid, s.viewid) for s in data.train} == {(0, 0), (1, 0), (2, 1)}
    assert "cameras: cctv/1, cctv/2, drone/1\n" in capsys.readouterr().out
    for sample in data.train + data.query + data.gallery:
        person, view, name = Path(sample.path).parts[-3:]
        assert data.names_of(sample) == (person, f"{view}/{name[3]}", view)
    listed = {Path(s.path).resolve() for s in data.train + data.query + data.gallery}
    assert listed == {(tmp_path / crop).resolve() for crop in CROPS}


def test_every_format_is_listed_and_other_files_are_counted_and_named_in_one_line(
    make_csv, image_tree, tmp_path, capsys
):
    suffixes = ("jpg", "webp", "tiff", "gif", "png", "bmp")
    image_tree([f"{crop[:-3]}{suffixes[number % 6]}" for number, crop in enumerate(CROPS)])
    for name in ("notes.txt", "p01/drone/raw.heic", "p01/drone/.hidden", "p02/list.txt"):
        (tmp_path / "crops" / name).touch()
    make_csv(tmp_path / "crops", "--output", tmp_path / "people.csv", *OPTIONS)
    line, *_, last = capsys.readouterr().out.splitlines()
    assert last.endswith(f"people.csv: {len(CROPS)} images")
    left_out = "3 files are no pictures by their names and are left out: 2 .txt, 1 .heic, such as notes.txt"
    assert line.endswith(f"crops: {left_out}")


def test_the_folder_and_its_file_can_be_moved_together(make_csv, image_tree, tmp_path):
    image_tree(CROPS)
    make_csv(tmp_path / "crops", "--output", tmp_path / "crops" / "people.csv", *OPTIONS)
    shutil.move(tmp_path / "crops", tmp_path / "moved")
    assert open_dataset("CSVDataset", root="", csv=str(tmp_path / "moved" / "people.csv")).train


def test_the_seed_alone_decides_the_split(make_csv, image_tree, tmp_path):
    image_tree(CROPS)
    written = []
    for number, seed in enumerate((1, 1, 2)):
        make_csv(tmp_path / "crops", "--output", tmp_path / f"{number}.csv", *OPTIONS, "--seed", seed)
        written.append((tmp_path / f"{number}.csv").read_bytes())
    assert written[0] == written[1] != written[2]


def test_another_file_is_not_overwritten_unless_asked(make_csv, refusal, image_tree, tmp_path):
    image_tree(CROPS)
    command = (tmp_path / "crops", "--output", tmp_path / "people.csv", *OPTIONS)
    make_csv(*command)
    make_csv(*command)  # the same content: nothing is lost
    (tmp_path / "people.csv").write_text("mine")
    assert "people.csv exists and holds something else" in refusal(*command)
    assert (tmp_path / "people.csv").read_text() == "mine"
    make_csv(*command, "--overwrite")
    assert (tmp_path / "people.csv").read_text().startswith("path,pid,camid,view,split\n")


def test_an_output_that_is_a_folder_is_refused(refusal, image_tree, tmp_path):
    image_tree(CROPS)
    said = refusal(tmp_path / "crops", "--output", tmp_path, *OPTIONS)
    assert f"--output '{tmp_path}' is a folder, not a file" in said


@pytest.mark.parametrize(
    ("levels", "names", "path", "expected"),
    [
        (["pid"], r"^(?P<view>[a-z]+)(?P<camera>\d)", "7/drone3_5.png", ("7", "3", "drone")),
        (["view", "camera", "pid"], "", "drone/3/x/5.png", ("x", "3", "drone")),
        (["-", "pid", "view"], "", "2024/x/drone/5.png", ("x", "drone", "drone")),
        ([], r"(?P<pid>\d+)_(?P<view>\w)", "0007_d_5.png", ("0007", "d", "d")),
    ],
)
def test_labels_come_from_levels_and_names(image_tree, levels, names, path, expected):
    folder = str(image_tree([path]))
    (crop,) = Crops(levels, names).scan(folder)
    assert crop == (f"{folder}/{path}", *expected)


@pytest.mark.parametrize(
    ("levels", "names", "said"),
    [
        (["pid"], "", "nothing tells the view of an image"),
        (["view"], "", "nothing tells the pid of an image"),
        (["pid", "view"], "(?P<view>x)", "both tell the view"),
        (["pid", "cam"], "", "'cam' is none of pid, camera, view. Did you mean 'camera'"),
        (["pid"], "(?P<view>", "is no regular expression"),
        (
            ["view", "pid", "camera"],
            "",
            r"p00/drone/cam1_0.png lies 2 folders below .*view/pid/camera names 3",
        ),
        (["pid", "view"], "^(?P<camera>[0-9]+)", "cam1_0.png: the file name does not match --names"),
        (["pid", "view"], "^cam1(?P<camera>[a-z]*)", "cam1_0.png: the camera is empty"),
    ],
)
def test_what_does_not_tell_the_labels_is_named(image_tree, levels, names, said):
    folder = image_tree(["crops/p00/drone/cam1_0.png"]) / "crops"
    with pytest.raises(UserError, match=said):
        Crops(levels, names).scan(str(folder))


def test_folders_that_cannot_be_split_are_refused(refusal, image_tree, tmp_path):
    one_view = [crop for crop in CROPS if "drone" in crop]
    command = (tmp_path / "crops", "--output", tmp_path / "people.csv", *OPTIONS)
    assert "folder not found" in refusal(*command)
    (tmp_path / "crops").mkdir()
    assert "no images in" in refusal(*command)
    image_tree(one_view[:2])
    assert "1 person" in refusal(*command)
    image_tree(one_view)
    assert "none of the 5 test persons is seen by two cameras" in refusal(*command)
    assert "--train-share is 1.0" in refusal(*command, "--train-share", "1")
    assert "argument --seed: expected a number from 0 on, got '-1'" in refusal(*command, "--seed", "-1")
    assert not (tmp_path / "people.csv").exists()


@pytest.mark.parametrize(
    ("persons", "said"),
    [
        (PERSONS[1:3], "view 'Drone' shows none of the 1 training persons"),
        (PERSONS, "view 'drone' is 'Drone' on line"),
    ],
)
def test_a_file_that_could_not_be_used_is_not_written(refusal, image_tree, tmp_path, persons, said):
    image_tree([*CROPS, *(f"crops/{pid}/Drone/cam1_0.png" for pid in persons)])
    output = tmp_path / "people.csv"
    assert said in refusal(tmp_path / "crops", "--output", output, *OPTIONS, "--train-share", "0.1")
    assert not output.exists()


@given(counts=st.dictionaries(st.integers(0, 5), st.integers(1, 4), min_size=1), per_camera=st.integers(1, 3))
def test_every_query_keeps_a_match_in_another_camera(counts, per_camera):
    images = {camera: [f"{camera}/{index}" for index in range(count)] for camera, count in counts.items()}
    chosen = choose_queries(images, per_camera, np.random.default_rng(0))
    by_camera = defaultdict(set)
    for path in chosen:
        by_camera[int(path[0])].add(path)
    gallery = {camera for camera, paths in images.items() if set(paths) - chosen}
    assert all(len(paths) <= per_camera for paths in by_camera.values())
    assert all(gallery - {camera} for camera in by_camera)
    assert bool(chosen) == (len(images) > 1)
    if all(count > per_camera for count in counts.values()) and len(counts) > 1:
        assert len(chosen) == per_camera * len(counts)


def test_persons_taken_for_views_are_suspected(make_csv, image_tree, tmp_path, capsys):
    image_tree(CROPS)
    swapped = "--levels", "view/pid", *OPTIONS[2:]
    make_csv(tmp_path / "crops", "--output", tmp_path / "people.csv", *swapped)
    assert (
        "2 persons in 10 views: have --levels or --names taken one for the other?" in capsys.readouterr().out
    )


def test_as_many_views_as_persons_are_not_suspected(make_csv, image_tree, tmp_path, capsys):
    image_tree([crop for crop in CROPS if crop.split("/")[1] in PERSONS[:2]])
    make_csv(tmp_path / "crops", "--output", tmp_path / "people.csv", *OPTIONS)
    assert "taken one for the other" not in capsys.readouterr().out
