"""Indexes that are damaged, half written or of odd content: one line, or the right answer."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from deploy.test_search_changes import in_a_process
from deploy.test_search_index import clustered, write_features

from fastreid.deploy.image_lists import write_columns
from fastreid.deploy.search import (
    SearchIndex,
    add_pictures,
    build_index,
    compact_index,
    remove_pictures,
)
from fastreid.deploy.search import index as index_module
from fastreid.deploy.search.table import PictureTable
from fastreid.utils.errors import UserError

COUNT = 300


def features_with(folder: Path, columns: dict[str, list], count: int = COUNT):
    features = write_features(folder, clustered(COUNT)[:count])
    write_columns(folder / "images.csv", columns)
    return features


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    rows = list(range(COUNT))
    paths = [f"{row}.jpg" for row in rows]
    columns = {"path": paths, "row": rows, "note": ["long " * 40] * COUNT}
    return features_with(tmp_path_factory.mktemp("features"), columns)


@pytest.fixture(scope="module")
def built(features, tmp_path_factory) -> dict[str, Path]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("ivf", "ivfpq")}
    for kind, folder in folders.items():
        build_index(features, folder, kind)
    return folders


@pytest.fixture
def copy(built, tmp_path):
    return lambda kind: Path(shutil.copytree(built[kind], tmp_path / "index"))


FILES = ["index.json", "lists.faiss", "rotation.npy", "refinement.faiss", "lists_00000.bin"]
FILES += ["refinement_00000.bin", "pictures.sqlite"]


class TestDamage:
    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "rubbish"])
    def test_a_file(self, copy, features, name, damage):
        (path,) = copy("ivfpq").rglob(name)
        folder = path.parent if name == "index.json" else path.parent.parent
        if damage == "missing":
            path.unlink()
        elif damage == "rubbish":
            path.write_text("path\nrubbish\n")
        else:
            os.truncate(path, path.stat().st_size // 2 if damage == "truncated" else 0)
        for action in (SearchIndex.open, lambda folder: add_pictures(folder, features), compact_index):
            with pytest.raises(UserError, match="no usable index in .*build one with"):
                action(folder)
        with pytest.raises(UserError, match="no usable index in .*build one with"):
            remove_pictures(folder, "row = 3")

    @pytest.mark.parametrize("kind", ["ivf", "ivfpq"])
    @pytest.mark.parametrize("exact", [False, True])
    def test_numbers_of_pictures(self, copy, kind, exact):
        folder = copy(kind)
        path = next(folder.rglob("lists_00000.bin"))
        content = np.memmap(path, np.uint8, "r+")
        content[:] = 100
        del content
        with pytest.raises(UserError, match="codes in .* are damaged; build one with"):
            SearchIndex.open(folder).search(np.ones((2, 16), np.float32), 5, exact=exact)

    def test_pages_of_the_table(self, copy):
        folder = copy("ivf")
        path = next(folder.rglob("pictures.sqlite"))
        with open(path, "r+b") as file:
            for page in range(5, path.stat().st_size // 4096):
                file.seek(4096 * page)
                file.write(b"rubbish" * 100)
        index = SearchIndex.open(folder)
        items = index.search(np.ones((2, 16), np.float32), 200)[1]
        for action in (
            lambda: index.rows(items),
            lambda: index.search(np.ones((2, 16), np.float32), 5, "row = 3"),
        ):
            with pytest.raises(UserError, match=r"pictures.sqlite cannot be read \(.*malformed.*build one"):
                action()
        with pytest.raises(UserError, match="malformed"):
            remove_pictures(folder, paths=[f"{row}.jpg" for row in range(COUNT)])

    @pytest.mark.parametrize("lines", [-1, 1])
    def test_a_list_of_other_length_than_the_features(self, copy, features, tmp_path, lines):
        rows = list(range(COUNT + lines))
        columns = {"path": [f"new{row}.jpg" for row in rows], "row": rows, "note": rows}
        other = features_with(tmp_path / "other", columns)
        with pytest.raises(
            UserError, match=f"lists {COUNT + lines} pictures, but there are features of {COUNT}"
        ):
            build_index(other, tmp_path / "new")
        folder = copy("ivf")
        if lines < 0:
            with pytest.raises(UserError, match="but there are features of"):
                add_pictures(folder, other)
            assert len(SearchIndex.open(folder)) == COUNT


class TestOthers:
    """What other processes and earlier ones have done."""

    def test_an_index_that_is_replaced_while_it_is_opened(self, copy, monkeypatch):
        folder, read_facts = copy("ivf"), index_module.read_facts

        def read_before_a_compaction(place):
            facts = read_facts(place)
            monkeypatch.setattr(index_module, "read_facts", read_facts)
            compact_index(folder)
            return facts

        monkeypatch.setattr(index_module, "read_facts", read_before_a_compaction)
        assert SearchIndex.open(folder).folder.name == "generation_00001"

    def test_a_first_build_that_was_killed_as_it_began(self, features, tmp_path):
        (tmp_path / "generation_00000").mkdir()
        assert len(build_index(features, tmp_path)) == COUNT

    def test_other_folders_stay(self, copy, features):
        folder = copy("ivf")
        (folder / "generation_of_mine").mkdir()
        (folder / "generation_of_mine" / "notes.txt").write_text("mine")
        build_index(features, folder)
        assert (folder / "generation_of_mine" / "notes.txt").read_text() == "mine"

    def test_a_change_of_an_index_that_is_not_there_makes_nothing(self, features, tmp_path):
        for action in (compact_index, remove_pictures, lambda folder: add_pictures(folder, features)):
            with pytest.raises(UserError, match="no usable index in"):
                action(tmp_path / "typo")
        assert not (tmp_path / "typo").exists()

    def test_what_killed_additions_have_left_goes(self, copy, features):
        folder = copy("ivf")
        partial = next(folder.glob("generation_*")) / ".lists_00001.bin.1.x.tmp"
        partial.write_bytes(b"codes")
        remove_pictures(folder, "row < 10")
        assert add_pictures(folder, features) == 10
        assert not partial.exists()

    def test_a_writer_is_killed_while_an_index_is_open(self, copy):
        folder = copy("ivf")
        index = SearchIndex.open(folder)
        queries = np.ones((2, 16), np.float32)
        before = index.search(queries, 5, "row > 3")[1]

        def write_half() -> None:
            table = PictureTable(index.table.path, writable=True)._database
            table.execute("PRAGMA cache_spill = ON")
            table.execute("PRAGMA cache_size = 1")
            table.execute("BEGIN IMMEDIATE")
            table.execute("UPDATE pictures SET row = 1")
            os.kill(os.getpid(), signal.SIGKILL)

        assert in_a_process(write_half) == -signal.SIGKILL
        assert np.array_equal(index.search(queries, 5, "row > 3")[1], before)
        assert index.rows(before).keys() == set(before.ravel().tolist())

    def test_features_of_another_width_are_refused(self, copy, tmp_path):
        other = write_features(tmp_path / "other", clustered(20, width=8))
        with pytest.raises(UserError, match="features of other width 8 than the index"):
            add_pictures(copy("ivf"), other)


class TestOddContent:
    NAMES = ["select", 'a"b', "", "row id", "rowid", "naïve\ncolumn", "1"]
    PATHS = [
        'a "b", c.jpg',
        "line\nbreak\r.jpg",
        "quote'.jpg",
        "caf\udce9.jpg",
        " space .jpg",
        "-- .jpg",
        "%_.jpg",
    ]

    @pytest.fixture
    def index(self, tmp_path) -> SearchIndex:
        columns = {"path": self.PATHS} | {name: list(range(7)) for name in self.NAMES}
        return build_index(features_with(tmp_path / "odd", columns, 7), tmp_path / "index")

    def test_names_of_columns_and_paths(self, index, tmp_path):
        rows = index.rows(np.arange(7))
        assert [rows[item]["path"] for item in range(7)] == self.PATHS
        assert list(rows[0]) == ["path", *self.NAMES]
        queries = clustered(COUNT)[:1]
        for name in self.NAMES:
            quoted = '"' + name.replace('"', '""') + '"'
            assert index.search(queries, 9, f"{quoted} = 4")[1].tolist() == [[4]]
        write_columns(tmp_path / "list.csv", {"path": self.PATHS[1:]})
        assert remove_pictures(tmp_path / "index", paths=self.PATHS[1:]) == 6
        assert remove_pictures(tmp_path / "index", paths=self.PATHS[1:]) == 0
        compact_index(tmp_path / "index")
        assert SearchIndex.open(tmp_path / "index").rows(np.arange(7))[0]["path"] == self.PATHS[0]

    @pytest.mark.parametrize("name", ["item", "ITEM", "Path"])
    def test_names_that_cannot_be(self, tmp_path, name):
        features = features_with(tmp_path / "odd", {"path": self.PATHS, name: self.PATHS}, 7)
        with pytest.raises(UserError, match=f"columns path, {name}: .*; rename columns of the list"):
            build_index(features, tmp_path / "index")

    @pytest.mark.parametrize(
        "where", ["row = '\0'", "path = 'caf\udce9.jpg'", "abs(-9223372036854775807 - 1)"]
    )
    def test_expressions_that_sqlite_cannot_take(self, copy, where):
        with pytest.raises(UserError, match="--where "):
            SearchIndex.open(copy("ivf")).search(np.ones((1, 16), np.float32), 3, where)

    def test_more_is_wanted_than_there_is(self, copy):
        index = SearchIndex.open(copy("ivfpq"))
        for where, count in ((None, COUNT), ("row < 7", 7), ("row < 0", 0)):
            scores, items = index.search(np.ones((2, 16), np.float32), 10**6, where)
            assert scores.shape == items.shape == (2, count)
            assert len(np.unique(items[0])) == count
        assert index.recall(np.ones((2, 16), np.float32), 5, "row < 0") is None
