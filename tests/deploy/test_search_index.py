"""Searching features: against a comparison of every pair in float64, for every kind of index."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds.checkpoints import write_checkpoint
from worlds.programs import run_tool

from fastreid import ReIDModel
from fastreid.cli import search as cli_search
from fastreid.deploy import workers
from fastreid.deploy.feature_files import FeatureSet, extract_to_files
from fastreid.deploy.image_lists import Columns, write_columns
from fastreid.deploy.search import SearchIndex, build_index, recall, writing
from fastreid.deploy.search.codec import balanced_axes, normalised
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import sha256_of, write_json


def write_features(
    folder: Path, features: np.ndarray, shard_size: int = 300, columns: Columns | None = None
) -> FeatureSet:
    """Features as an extraction leaves them; of pictures with a pid each where no `columns` are given."""
    folder.mkdir(exist_ok=True)
    facts = {"checkpoint": {"path": "model.pth", "sha256": "0"}, "config": {}, "stage": 1, "views": []}
    rows = range(len(features))
    columns = columns or {"path": [f"{row}.jpg" for row in rows], "pid": list(rows)}
    write_columns(folder / "images.csv", columns)
    digest = sha256_of(folder / "images.csv")
    facts |= {"images": len(features), "width": features.shape[1], "images_sha256": digest}
    feature_set = FeatureSet(folder, facts | {"format": "npy", "shard_size": shard_size})
    write_json(folder / "features.json", feature_set.facts)
    for number in range(feature_set.num_shards):
        feature_set.write_shard(number, features[feature_set.rows(number)], columns)
    return FeatureSet.open(folder)


def clustered(count: int, width: int = 16, seed: int = 0) -> np.ndarray:
    """Features in 40 clusters, of lengths from 0.1 to 10."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(40, width))[generator.integers(40, size=count)]
    lengths = 10 ** generator.uniform(-1, 1, (count, 1))
    return ((centres + 0.5 * generator.normal(size=(count, width))) * lengths).astype(np.float32)


def nearest(queries: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarities and rows of the k most similar, pair by pair in float64."""
    a, b = (
        m.astype(np.float64) / np.linalg.norm(m.astype(np.float64), axis=1)[:, None]
        for m in (queries, gallery)
    )
    similarity = a @ b.T
    rows = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, rows, axis=1), rows


@pytest.fixture(scope="module")
def gallery() -> np.ndarray:
    return clustered(2000)


@pytest.fixture(scope="module")
def feature_set(gallery, tmp_path_factory) -> FeatureSet:
    return write_features(tmp_path_factory.mktemp("features"), gallery)


@pytest.fixture(scope="module")
def indices(feature_set, tmp_path_factory) -> dict[str, SearchIndex]:
    return {
        kind: build_index(feature_set, tmp_path_factory.mktemp(kind), kind)
        for kind in ("exact", "ivf", "ivfpq")
    }


class TestIndex:
    @pytest.mark.parametrize("kind", ["exact", "ivf"])
    def test_exact_search_finds_the_most_similar(self, indices, gallery, kind):
        queries = clustered(30, seed=1)
        scores, rows = indices[kind].search(queries, 10, exact=True)
        expected_scores, expected_rows = nearest(queries, gallery, 10)
        assert np.array_equal(rows, expected_rows)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-6)

    def test_an_exact_index_needs_no_telling(self, indices):
        queries = clustered(30, seed=1)
        assert np.array_equal(
            indices["exact"].search(queries, 5)[1], indices["exact"].search(queries, 5, True)[1]
        )
        assert indices["exact"].recall(queries, 5) == 1

    def test_ivf_reads_the_fewest_lists_that_find_99_percent(self, indices, gallery):
        index = indices["ivf"]
        facts = index.facts
        assert facts["lists"] == 2000 // 64  # fewer than 4 sqrt(2000): 64 pictures place a centre
        assert 1 < facts["probes"] < facts["lists"]
        assert facts["probes"] & (facts["probes"] - 1) == 0
        assert facts["recall"] >= 0.99

        def found_share(probes: int) -> float:
            """Of all pictures' ten nearest others."""
            exact = nearest(gallery, gallery, 11)[1]
            found = index.find(normalised(gallery), 11, probes)[1]
            shares = [
                len(set(f) & set(e) - {own}) / 10
                for own, (f, e) in enumerate(zip(found.tolist(), exact.tolist(), strict=True))
            ]
            return float(np.mean(shares))

        assert found_share(facts["probes"]) == pytest.approx(facts["recall"], abs=0.01)
        assert found_share(facts["probes"] // 2) < 0.995  # the sample's share was below 0.99

    def test_recall_is_measured_against_exact_search(self, indices, gallery):
        index, queries = indices["ivf"], clustered(50, seed=2)
        found, exact = index.search(queries, 5)[1], nearest(queries, gallery, 5)[1]
        expected = np.mean(
            [len(set(f) & set(e)) / 5 for f, e in zip(found.tolist(), exact.tolist(), strict=True)]
        )
        assert index.recall(queries, 5) == pytest.approx(expected)

    def test_building_again_gives_the_same_index(self, indices, feature_set, tmp_path):
        again, queries = build_index(feature_set, tmp_path, "ivfpq"), clustered(20, seed=3)
        assert again.facts == indices["ivfpq"].facts
        assert np.array_equal(again.search(queries, 10)[1], indices["ivfpq"].search(queries, 10)[1])

    def test_the_number_of_pictures_decides_the_kind(self, monkeypatch):
        for count, kind in ((100_000, "exact"), (100_001, "ivf"), (1_000_000, "ivf"), (1_000_001, "ivfpq")):
            assert writing.choose_recipe("auto", count, 768)[0] == kind

    def test_codes_of_768_numbers_take_104_bytes(self):
        recipe = writing.choose_recipe("ivfpq", 2_000_000, 768)[1]
        assert recipe == "OPQ64,IVF4096,PQ32,Refine(PQ64)"  # 32 + 64, and 8 of the number

    @pytest.mark.parametrize("kind", ["exact", "ivf"])
    def test_pictures_without_features_are_left_out(self, tmp_path, kind, caplog):
        features = clustered(200)
        features[[0, 77, 150]] = np.nan
        index = build_index(write_features(tmp_path, features, 50), tmp_path / "index", kind)
        kept = np.delete(np.arange(200), [0, 77, 150])
        assert [row["pid"] for row in index.rows(np.arange(197)).values()] == kept.tolist()
        items = index.search(features[kept], 1, exact=True)[1]
        assert np.array_equal(items[:, 0], np.arange(197))
        assert "3 pictures without features" in caplog.text

    @pytest.mark.parametrize("count", [0, 3])
    def test_without_any_feature_there_is_no_index(self, tmp_path, count):
        with pytest.raises(UserError, match=f"none of the {count} features"):
            build_index(write_features(tmp_path, np.full((count, 4), np.nan, np.float32)), tmp_path / "index")

    @pytest.mark.parametrize("kind", ["exact", "ivf"])
    def test_one_picture_is_found(self, tmp_path, kind):
        features = write_features(tmp_path, np.ones((1, 4), np.float32))
        index = build_index(features, tmp_path / "index", kind)
        scores, rows = index.search(np.full((1, 4), 3, np.float32), 10)
        assert rows.tolist() == [[0]]
        assert scores[0, 0] == pytest.approx(1)

    def test_features_of_another_width_are_refused(self, indices):
        with pytest.raises(UserError, match="width 15, the index 16"):
            indices["exact"].search(np.zeros((1, 15), np.float32), 3)

    def test_without_faiss_it_says_what_to_install(self, feature_set, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "faiss", None)
        with pytest.raises(UserError, match="pip install faiss-cpu"):
            build_index(feature_set, tmp_path)


class TestCodes:
    """Indexes that keep less than the features."""

    def test_the_refinement_tells_what_the_code_lost(self, indices, gallery):
        index, queries = indices["ivfpq"], gallery[:40] + 0.01
        exact = nearest(queries, gallery, 10)[1]
        scores, items = index.search(queries, 10, exact=True)
        assert recall(items, exact) > 0.9
        true = np.take_along_axis(normalised(queries) @ normalised(gallery).T, items, axis=1)
        assert np.abs(scores - true).max() < 0.1
        refinement, index.codec.refinement = index.codec.refinement, None
        try:
            coarse = recall(index.search(queries, 10, exact=True)[1], exact)
        finally:
            index.codec.refinement = refinement
        assert coarse < recall(items, exact) - 0.1

    def test_recall_is_measured_with_the_features_while_they_are_at_hand(self, indices, gallery):
        index = indices["ivfpq"]
        exact = nearest(gallery, gallery, 11)[1]
        found = index.find(normalised(gallery), 11, index.facts["probes"])[1]
        others = [
            len(set(f) & set(e) - {own}) / 10
            for own, (f, e) in enumerate(zip(found.tolist(), exact.tolist(), strict=True))
        ]
        assert index.facts["recall"] == pytest.approx(np.mean(others), abs=0.03)
        assert index.recall(gallery[:3], 5) is None

    def test_axes_are_shared_out_to_groups_of_equal_products(self):
        generator = np.random.default_rng(0)
        turn = np.linalg.qr(generator.normal(size=(8, 8)))[0]
        variances = np.array([128, 64, 32, 16, 8, 4, 2, 1.0])
        sample = (generator.normal(size=(50_000, 8)) * np.sqrt(variances)) @ turn
        axes = balanced_axes(sample.astype(np.float32), 4)
        np.testing.assert_allclose(axes @ axes.T, np.eye(8), atol=1e-5)
        products = np.var(sample @ axes.T, axis=0).reshape(4, 2).prod(axis=1)
        np.testing.assert_allclose(products, 128, rtol=0.1)

    @pytest.mark.parametrize("recipe", ["IVF20,SQ8", "OPQ4,IVF10,Flat", "IVF8,PQ4,Refine(SQ8)"])
    def test_a_factory_string_of_faiss(self, feature_set, gallery, tmp_path, recipe):
        index = build_index(feature_set, tmp_path, recipe)
        assert index.facts["recipe"] == recipe
        found = index.search(gallery[:50], 10, exact=True)[1]
        assert recall(found, nearest(gallery[:50], gallery, 10)[1]) > 0.9

    @pytest.mark.parametrize(
        ("recipe", "message"),
        [
            ("rubbish", "no index of 16 numbers"),
            ("IVF8,PQ3", "no index of 16 numbers"),
            ("HNSW32", "cannot be kept on disk; expected"),
            ("IVF8,PQ8x4fs", "cannot be kept on disk; expected"),
            ("PCA8,IVF8,Flat", "cannot be kept on disk; expected"),
            ("OPQ4_8,IVF8,PQ4", "cannot be kept on disk; expected"),
            ("IVF4000,Flat", "cannot be trained with 2000 features"),
        ],
    )
    def test_others_are_refused(self, feature_set, tmp_path, recipe, message):
        with pytest.raises(UserError, match=message):
            build_index(feature_set, tmp_path / "index", recipe)
        assert not list(tmp_path.glob("index/generation_*"))


@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, 9), max_size=4), st.sets(st.integers(0, 9), max_size=4)), max_size=5
    )
)
def test_recall_is_the_share_of_true_neighbours_found(rows):
    found, exact = (
        (
            np.array([[*members, *[-1] * (4 - len(members))] for members in part], int).reshape(-1, 4)
            for part in zip(*rows, strict=True)
        )
        if rows
        else (np.empty((0, 4), int),) * 2
    )
    true = sum(len(e) for _, e in rows)
    expected = sum(len(f & e) for f, e in rows) / true if true else 0
    assert recall(found, exact) == pytest.approx(expected)


class TestFiles:
    @pytest.fixture
    def small(self, gallery, tmp_path) -> Path:
        build_index(write_features(tmp_path / "features", gallery[:300]), tmp_path / "index", "ivf")
        return tmp_path / "index"

    def test_it_may_lie_in_the_folder_of_the_features(self, gallery, tmp_path):
        features = write_features(tmp_path, gallery[:50])
        assert len(build_index(features, tmp_path)) == len(FeatureSet.open(tmp_path).load()) == 50

    def test_an_interrupted_replacement_leaves_the_old_one(self, small, feature_set, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(writing, "tune", None)
            with pytest.raises(TypeError):
                build_index(feature_set, small, "ivf")
        assert len(SearchIndex.open(small)) == 300
        build_index(feature_set, small, "exact")
        assert SearchIndex.open(small).facts["kind"] == "exact"
        assert [path.name for path in small.glob("generation_*")] == ["generation_00001"]

    def test_an_open_index_outlives_its_replacement(self, small, gallery, feature_set):
        index = SearchIndex.open(small)
        before = index.search(gallery[:5], 3)
        build_index(feature_set, small, "exact")
        for now, earlier in zip(index.search(gallery[:5], 3), before, strict=True):
            assert np.array_equal(now, earlier)
        assert index.rows(before[1][0])[0]["pid"] == 0

    @pytest.mark.parametrize("name", ["index.json", "index.faiss", "index.csv"])
    def test_a_file_of_its_names_that_is_no_index_stays_as_it_is(self, feature_set, tmp_path, name):
        (tmp_path / name).write_text('{"mine": 1}')
        with pytest.raises(UserError, match=f"{name} is there, but no index.json of an index"):
            build_index(feature_set, tmp_path)
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, '{"mine": 1}')]

    def test_an_index_of_an_earlier_version_is_built_again(self, feature_set, tmp_path):
        facts = {"kind": "exact", "lists": 1, "probes": 1, "recall": 1.0, "parts": ["person"]}
        write_json(tmp_path / "index.json", facts | {"checkpoint": {}, "config": {}})
        for name in ("index.faiss", "index.csv"):
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(UserError, match="earlier version.*build it again from its features"):
            SearchIndex.open(tmp_path)
        build_index(feature_set, tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["generation_00000", "index.json"]


class TestTool:
    """Stage 2 with one view, so that settings and views have to find their way to the queries."""

    @pytest.fixture(scope="class")
    def features(self, checkpoints, paths, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("extracted")
        options = ("TEST.FLIP.ENABLED", "True")
        model = ReIDModel.from_checkpoint(checkpoints[2], device="cpu", options=options)
        labels = {"pid": 7, "camid": 1, "viewid": 0, "person": "007", "camera": "2", "view": "kite"}
        labels = {name: [value] * len(paths) for name, value in labels.items()}
        extract_to_files(model, {"path": paths, **labels}, folder, views=["ground"])
        return folder

    @pytest.fixture
    def index(self, features, tmp_path) -> Path:
        code, out, _ = run_tool("search.py", "build", "--features", features, "--index", tmp_path / "index")
        assert code == 0
        assert "7 pictures, exact search" in out
        return tmp_path / "index"

    def query(self, index, *arguments):
        return run_tool("search.py", "query", "--index", index, "--device", "cpu", "--pictures", *arguments)

    def test_json_has_paths_scores_and_labels(self, index, features, paths):
        code, out, _ = self.query(index, paths[2], paths[0], "--top", 3, "--json")
        assert code == 0
        answer = json.loads(out)
        assert (answer["search"], answer["top"]) == ("exact", 3)
        assert answer["recall_against_exact_search"] == 1
        matrix = FeatureSet.open(features).load()
        scores, rows = nearest(matrix[[2, 0]], matrix, 3)
        for answered, number, expected in zip(
            answer["answers"], (2, 0), zip(scores, rows, strict=True), strict=True
        ):
            assert answered["query"] == answered["results"][0]["path"] == paths[number]
            assert [hit["path"] for hit in answered["results"]] == [paths[row] for row in expected[1]]
            assert [hit["score"] for hit in answered["results"]] == pytest.approx(
                expected[0].tolist(), abs=1e-5
            )
            assert [hit["rank"] for hit in answered["results"]] == [1, 2, 3]
            assert {(hit["pid"], hit["camid"], hit["viewid"]) for hit in answered["results"]} == {(7, 1, 0)}

    def test_table_and_page_of_a_folder_of_queries(self, index, paths, tmp_path):
        (tmp_path / "queries" / "deep").mkdir(parents=True)
        shutil.copy(paths[4], tmp_path / "queries" / "deep" / "someone.jpg")
        page = tmp_path / "found.html"
        code, out, err = self.query(index, tmp_path / "queries", "--top", 2, "--html", page)
        assert code == 0
        lines = out.splitlines()
        assert lines[0].endswith("someone.jpg")
        assert lines[3].split()[:3] == ["1", "1.0000", paths[4]]
        assert "recall@2 against exact search 1.000 for these queries" in lines[-1]
        assert "007" in lines[3].split()
        text = page.read_text()
        assert "someone.jpg" in text
        assert "person 007, camera 2, view kite" in text
        assert Path(paths[4]).name in text
        assert f"1 queries: {page}" in err

    def test_a_picture_that_moved_has_a_placeholder_in_the_page(self, checkpoints, paths, tmp_path):
        copy = shutil.copy(paths[4], tmp_path / "moved.jpg")
        model = ReIDModel.from_checkpoint(checkpoints[1], device="cpu")
        extract_to_files(model, {"path": [copy, paths[0]]}, tmp_path / "features")
        build_index(FeatureSet.open(tmp_path / "features"), tmp_path / "index")
        (tmp_path / "moved.jpg").unlink()
        code, _, err = self.query(tmp_path / "index", paths[1], "--html", tmp_path / "found.html")
        assert code == 0
        assert "1 pictures are not where they were, or cannot be read" in err
        assert "no such file" in (tmp_path / "found.html").read_text()

    def test_cameras_and_views_limit_the_search(self, index, paths):
        names = ("--camera", "2", "1", "--view", "kite", "--where", "pid = 7 OR pid = 8")
        code, _, err = self.query(index, paths[0], *names)
        assert code == 2
        assert err == "error: --camera '1': the index has no such picture (column camera)\n"
        code, out, _ = self.query(index, paths[0], "--camera", "2", *names[3:], "--top", 2, "--json")
        assert code == 0
        assert [hit["rank"] for hit in json.loads(out)["answers"][0]["results"]] == [1, 2]
        code, _, err = self.query(index, paths[0], "--view", "kite'); DROP TABLE pictures; --")
        assert code == 2
        assert "no such picture (column view)" in err

    def test_several_processes_share_the_queries_out(self, index, paths, tmp_path, monkeypatch):
        monkeypatch.setattr(workers, "START_METHOD", "fork")
        monkeypatch.setattr(cli_search, "QUERY_SHARD", 2)
        code, alone, _ = self.query(index, *paths[:5], "--json")
        code, shared, _ = self.query(index, *paths[:5], "--json", "--num-gpus", 2)
        assert code == 0
        assert re.findall('"path": .*', shared) == re.findall('"path": .*', alone)
        kept = ("--query-features", tmp_path / "kept")
        assert self.query(index, *paths[:5], "--json", *kept) == (0, shared, "")
        assert len(list((tmp_path / "kept").glob("features_*.npy"))) == 3
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        assert self.query(index, *paths[:5], "--json", *kept) == (0, "", "")
        code, _, err = self.query(index, *paths[:5])
        assert code == 2
        assert "name a folder that all of them see: --query-features" in err

    def test_a_query_whose_name_is_no_text(self, index, paths, tmp_path):
        query = shutil.copy(paths[4], tmp_path / "caf\udce9.jpg")
        code, out, err = self.query(index, query, "--top", 2, "--html", tmp_path / "found.html")
        assert code == 0
        assert out.startswith(f"{tmp_path}/caf\\udce9.jpg\n")
        assert "1 queries: " in err

    def test_a_moved_checkpoint_can_be_named_and_another_is_refused(
        self, index, checkpoints, cargo, paths, tmp_path
    ):
        moved = shutil.copy(checkpoints[2], tmp_path / "moved.pth")
        assert self.query(index, paths[0], "--checkpoint", moved)[0] == 0
        other = write_checkpoint(tmp_path, 2, cargo, seed=2)
        code, _, err = self.query(index, paths[0], "--checkpoint", other)
        assert code == 2
        assert "has other weights than the indexed features" in err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["build", "--features", "{tmp}", "--index", "{tmp}/i"], "no features in"),
            (["query", "--index", "{tmp}", "--pictures", "a.jpg"], "no usable index"),
            (["query", "--index", "{index}", "--pictures", "absent.jpg"], "absent.jpg"),
            (["query", "--index", "{index}", "--pictures", "{tmp}/empty"], "no .jpg"),
            (["query", "--index", "{index}", "--pictures", "a.jpg", "--top", "0"], "from 1 on"),
            (
                ["query", "--index", "{index}", "--pictures", "{path}", "--html", "{tmp}"],
                "is a folder, not a file",
            ),
            (["build", "--features", "{tmp}", "--index", "{path}"], "is a file, not a folder"),
            (
                ["query", "--index", "{index}", "--pictures", "{path}", "--checkpoint", "absent.pth"],
                "absent.pth",
            ),
            ([], "required"),
        ],
    )
    def test_mistakes_are_one_line(self, index, paths, tmp_path, arguments, message):
        (tmp_path / "empty").mkdir()
        arguments = [text.format(tmp=tmp_path, index=index, path=paths[0]) for text in arguments]
        code, _, err = run_tool("search.py", *arguments)
        assert code == 2
        assert message in err
        assert err.strip().splitlines()[-1].startswith("error: ")
