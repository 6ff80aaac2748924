"""Filters, removal, addition and compaction of an index, against the same done to a list of pictures."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from deploy.test_search_index import clustered, nearest, write_features
from worlds.programs import run_tool

from fastreid.deploy.image_lists import write_columns
from fastreid.deploy.search import (
    SearchIndex,
    add_pictures,
    build_index,
    compact_index,
    remove_pictures,
)
from fastreid.deploy.search.folder import change
from fastreid.deploy.search.table import PictureTable, column_types
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import write_json

COUNT = 600
CAMERAS = [row % 3 for row in range(2 * COUNT)]
TIMES = [f"2026-01-01 {row % 24:02d}:00" for row in range(2 * COUNT)]


def features_of(folder: Path, matrix: np.ndarray, rows: range):
    """The features `matrix[rows]`, with cameras, times, heights, and names that are no valid text."""
    columns = {
        "path": [f"caf\udce9/{row}.jpg" for row in rows],
        "camid": [CAMERAS[row] for row in rows],
        "time": [TIMES[row] for row in rows],
        "height": ["" if row % 2 else row / 4 for row in rows],
        "row": list(rows),
    }
    return write_features(folder, matrix[rows.start : rows.stop], columns=columns)


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    return clustered(2 * COUNT)


@pytest.fixture(params=["exact", "ivf", "ivfpq"])
def folder(request, matrix, tmp_path) -> Path:
    build_index(features_of(tmp_path / "features", matrix, range(COUNT)), tmp_path / "index", request.param)
    return tmp_path / "index"


@pytest.fixture
def exact(matrix, tmp_path) -> Path:
    build_index(features_of(tmp_path / "features", matrix, range(COUNT)), tmp_path / "index", "exact")
    return tmp_path / "index"


def found_rows(folder: Path, matrix: np.ndarray, where: str | None = None, k: int = 8) -> np.ndarray:
    """The rows of `matrix` that the index finds for its first pictures, by reading everything."""
    index = SearchIndex.open(folder)
    items = index.search(matrix[:20], k, where, exact=True)[1]
    rows = index.rows(items)
    return np.array([[rows[item]["row"] for item in line] for line in items.tolist()])


def check(folder: Path, matrix: np.ndarray, kept: list[int], where: str | None = None) -> None:
    """The index finds, among the rows `kept`, the nearest; one with codes nearly those."""
    found = found_rows(folder, matrix, where)
    expected = np.array(kept)[nearest(matrix[:20], matrix[kept], 8)[1]]
    assert np.isin(found, kept).all()
    if SearchIndex.open(folder).codec.lossless:
        assert np.array_equal(found, expected)
    else:
        assert np.mean([len(set(f) & set(e)) / 8 for f, e in zip(found, expected, strict=True)]) > 0.8


class TestFilters:
    @pytest.mark.parametrize(
        ("where", "holds"),
        [
            ("camid = 1", lambda row: row % 3 == 1),
            ("camid IN (0, 2) AND time >= '2026-01-01 12:00'", lambda row: row % 3 != 1 and row % 24 >= 12),
            ("height BETWEEN 9 AND 100", lambda row: row % 2 == 0 and 9 <= row / 4 <= 100),
            ("height IS NULL", lambda row: row % 2 == 1),
            ("path LIKE '%/1__.jpg' -- a remark", lambda row: 100 <= row < 200),
        ],
    )
    def test_only_pictures_that_meet_it_are_found(self, folder, matrix, where, holds):
        check(folder, matrix, [row for row in range(COUNT) if holds(row)], where)

    def test_a_search_of_few_lists_reads_more_of_them_for_few_pictures(self, matrix, tmp_path):
        index = build_index(features_of(tmp_path / "f", matrix, range(COUNT)), tmp_path / "i", "ivf")
        assert index.facts["probes"] < index.facts["lists"]
        few = np.arange(7, COUNT, 100)
        items = index.search(matrix[:20], 4, "row % 100 = 7")[1]
        assert np.array_equal(items, few[nearest(matrix[:20], matrix[few], 4)[1]])

    def test_nothing_meets_it(self, exact, matrix):
        assert SearchIndex.open(exact).search(matrix[:2], 5, "camid = 9")[1].shape == (2, 0)

    @pytest.mark.parametrize(
        "where",
        [
            "nonsense = 1",
            "camid =",
            "1); DROP TABLE pictures; --",
            "1) UNION SELECT item FROM removed WHERE (1",
            "1) UNION SELECT item FROM pictures WHERE (1",
            "item IN (SELECT item FROM removed)",
            "EXISTS (SELECT * FROM sqlite_master)",
            "camid = 1; ATTACH 'other.sqlite' AS other",
            "",
        ],
    )
    def test_anything_but_an_expression_is_refused(self, exact, matrix, where):
        index = SearchIndex.open(exact)
        before = index.table.path.read_bytes()
        with pytest.raises(UserError, match="--where .*; give one SQL expression of the columns path, camid"):
            index.search(matrix[:2], 5, where)
        assert index.table.path.read_bytes() == before
        assert len(index.search(matrix[:2], 5, "camid = 1")[1]) == 2

    def test_columns_of_numbers_are_told_from_text(self):
        header = ["path", "camid", "number", "zeros", "mixed", "empty", "some"]
        rows = [["1", "01", "-1.5", "007", "1", "", ""], ["2", "2", "20", "08", "x", "", "3"]]
        kinds = ["TEXT", "INTEGER", "NUMERIC", "TEXT", "TEXT", "TEXT", "NUMERIC"]
        assert column_types(iter([header, *rows])) == dict(zip(header, kinds, strict=True))


class TestChanges:
    def test_removed_added_and_compacted(self, folder, matrix, tmp_path):
        opened = SearchIndex.open(folder)
        assert remove_pictures(folder, "camid = 1") == COUNT // 3
        kept = [row for row in range(COUNT) if row % 3 != 1]
        check(folder, matrix, kept)
        assert len(opened) == len(kept)  # an index that is open knows it

        more = features_of(tmp_path / "more", matrix, range(COUNT - 100, 2 * COUNT))
        added = (
            COUNT + len(range(COUNT - 100, COUNT)) - sum(row % 3 != 1 for row in range(COUNT - 100, COUNT))
        )
        assert add_pictures(folder, more) == added
        kept = [row for row in range(2 * COUNT) if row % 3 != 1 or row >= COUNT - 100]
        assert len(SearchIndex.open(folder)) == len(kept)
        check(folder, matrix, kept)
        check(folder, matrix, [row for row in kept if row % 3 == 1], "camid = 1")

        paths = [f"caf\udce9/{row}.jpg" for row in (0, 5, 700)]
        assert remove_pictures(folder, paths=[*paths, "absent.jpg"]) == 3
        kept = [row for row in kept if row not in (0, 5, 700)]
        check(folder, matrix, kept)

        before = sum(path.stat().st_size for path in folder.rglob("*.bin"))
        compact_index(folder)
        check(folder, matrix, kept)
        check(folder, matrix, [row for row in kept if row % 3 == 1], "camid = 1")
        after = sum(path.stat().st_size for path in folder.rglob("*.bin"))
        assert after / len(kept) == before / (COUNT + added)
        assert add_pictures(folder, more) == 1  # 700

    def test_all_removed(self, exact, matrix):
        remove_pictures(exact, "1")
        assert SearchIndex.open(exact).search(matrix[:2], 3)[1].shape == (2, 0)
        with pytest.raises(UserError, match="no picture is left"):
            compact_index(exact)

    def test_features_of_other_weights_or_columns_are_refused(self, exact, matrix, tmp_path):
        more = features_of(tmp_path / "more", matrix, range(COUNT, 2 * COUNT))
        more.facts["checkpoint"]["sha256"] = "1"
        with pytest.raises(UserError, match="features of other weights"):
            add_pictures(exact, more)
        with pytest.raises(UserError, match="columns path, pid, not path, camid"):
            add_pictures(exact, write_features(tmp_path / "other", matrix))
        assert len(SearchIndex.open(exact)) == COUNT

    def test_an_index_from_before_pictures_had_names_takes_some_that_have(self, exact, matrix, tmp_path):
        more = features_of(tmp_path / "more", matrix, range(COUNT, COUNT + 2))
        names = {"person": ["022", "ann"], "camera": ["9", "gate"], "view": ["ground"] * 2}
        write_columns(more.folder / "images.csv", more.columns() | names)
        assert add_pictures(exact, more) == 2
        assert "person" not in SearchIndex.open(exact).table.columns
        build_index(more, tmp_path / "new")
        index = SearchIndex.open(tmp_path / "new")
        assert index.rows(np.arange(2))[0]["person"] == "022"
        assert index.table.select("camera = 9").tolist() == [0]

    def test_two_processes_do_not_change_it_at_once(self, exact):
        def compact() -> None:
            try:
                compact_index(exact)
            except UserError as error:
                os._exit(7 if "another process is changing the index" in str(error) else 1)

        with change(exact):
            assert in_a_process(compact) == 7
        assert in_a_process(compact) == 0


def in_a_process(call, *arguments) -> int:
    process = multiprocessing.get_context("fork").Process(target=call, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def killed_at(number: int, call, *arguments) -> None:
    """Run `call` in a process that kills itself before its `number`-th change of a file or table."""

    def audit(event: str, details: tuple) -> None:
        nonlocal number
        opened = event == "open" and isinstance(details[1], str) and details[1][0] in "wa"
        if opened or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            number -= 1
            if number < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    call(*arguments)
    os._exit(0)


class TestKilled:
    """Whatever moment a process is killed at, the index is as it was before or as it is after."""

    @pytest.mark.parametrize("action", ["add", "compact", "build"])
    def test_at_every_change_of_a_file(self, exact, matrix, tmp_path, action):
        more = features_of(tmp_path / "more", matrix, range(COUNT, COUNT + 50))
        remove_pictures(exact, "row = 3")
        before = [row for row in range(COUNT) if row != 3]
        after = {"add": [*before, *range(COUNT, COUNT + 50)], "compact": before}
        after["build"] = list(range(COUNT, COUNT + 50))
        call = {
            "add": (add_pictures, exact, more),
            "compact": (compact_index, exact),
            "build": (build_index, more, exact, "exact"),
        }[action]
        codes = []
        for number in range(0, 80, 1 if action == "add" else 2):
            codes.append(in_a_process(killed_at, number, *call))
            rows = found_rows(exact, matrix, k=COUNT + 60)[0]
            assert sorted(rows) in (before, after[action])
            if codes[-1] == 0:
                break
        assert sorted(rows) == after[action]
        assert set(codes[:-1]) == {-signal.SIGKILL}
        assert len(codes) > 4
        assert len(list(exact.glob("generation_*"))) == 1

    def test_in_the_middle_of_writing_the_table(self, exact, matrix):
        """Half a transaction is in the file, with the journal that undoes it."""
        path = next(exact.rglob("pictures.sqlite"))

        def write_half() -> None:
            table = PictureTable(path, writable=True)._database
            table.execute("PRAGMA cache_spill = ON")
            table.execute("PRAGMA cache_size = 1")
            table.execute("BEGIN IMMEDIATE")
            table.execute("UPDATE pictures SET camid = 77, time = time || hex(zeroblob(200))")
            os.kill(os.getpid(), signal.SIGKILL)

        before = path.read_bytes()
        assert in_a_process(write_half) == -signal.SIGKILL
        assert path.read_bytes() != before
        check(exact, matrix, list(range(COUNT)))
        assert path.read_bytes() == before


class TestTool:
    def test_remove_add_and_compact(self, exact, matrix, tmp_path):
        code, out, _ = run_tool("search.py", "remove", "--index", exact, "--where", "camid = 1")
        assert (code, out) == (0, f"200 pictures removed, 400 in {exact}\n")
        (tmp_path / "list.txt").write_bytes(b"caf\xe9/0.jpg\nabsent.jpg\n")
        code, out, _ = run_tool("search.py", "remove", "--index", exact, "--list", tmp_path / "list.txt")
        assert (code, out) == (0, f"1 pictures removed, 399 in {exact}\n")
        more = features_of(tmp_path / "more", matrix, range(COUNT))
        write_json(more.folder / "features.json", more.facts | {"parts": ["other"]})
        code, _, err = run_tool("search.py", "add", "--index", exact, "--features", more.folder)
        assert code == 2
        assert "features of other parts" in err
        write_json(more.folder / "features.json", more.facts)
        code, out, _ = run_tool("search.py", "add", "--index", exact, "--features", more.folder)
        assert code == 0
        assert out.endswith(f"201 pictures added, 600 in {exact}\n")
        assert run_tool("search.py", "compact", "--index", exact) == (0, f"600 pictures in {exact}\n", "")
