"""Features on disk: what is written, how an interrupted extraction goes on, and what is refused."""

import csv
import json
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds.checkpoints import write_checkpoint
from worlds.programs import run_tool

from fastreid import ReIDModel
from fastreid.data.datasets import open_dataset
from fastreid.deploy import feature_files, workers
from fastreid.deploy.feature_files import FeatureSet, extract_to_files
from fastreid.deploy.image_lists import Columns, read_columns, write_columns
from fastreid.utils.errors import UserError


@pytest.fixture(scope="module")
def model(checkpoints) -> ReIDModel:
    return ReIDModel.from_checkpoint(checkpoints[1], device="cpu")


@pytest.fixture
def extract(checkpoints):
    """`extract(argument, …)` calls the tool with the Stage-1 checkpoint."""

    def run(*arguments):
        return run_tool("extract_features.py", "--checkpoint", checkpoints[1], "--device", "cpu", *arguments)

    return run


def shard_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("features_*.np*"))


class TestTool:
    def test_a_folder_is_read_at_any_depth_into_npy_shards_and_a_table(self, extract, cargo, model, tmp_path):
        folder = cargo / "CARGO" / "gallery"
        code, out, _ = extract("--folder", folder, "--output", tmp_path / "out", "--shard-size", 5)
        assert code == 0
        expected = sorted(str(path) for path in folder.rglob("*.jpg"))
        assert f"{len(expected)} features of 128 numbers" in out
        with open(tmp_path / "out" / "images.csv", newline="") as file:
            assert [row["path"] for row in csv.DictReader(file)] == expected
        shards = [np.load(tmp_path / "out" / name) for name in shard_files(tmp_path / "out")]
        assert [len(shard) for shard in shards] == [5, 5, 5, 1]
        assert shards[0].dtype == np.float32
        np.testing.assert_allclose(np.concatenate(shards), model.extract(expected), atol=1e-5)

    def test_a_list_keeps_its_order(self, extract, paths, model, tmp_path):
        (tmp_path / "list.txt").write_text(f"{paths[3]}\n\n  {paths[0]}\r\n{paths[3]}")
        assert extract("--list", tmp_path / "list.txt", "--output", tmp_path / "out")[0] == 0
        features = FeatureSet.open(tmp_path / "out")
        assert features.columns() == {"path": [paths[3], paths[0], paths[3]]}
        expected = model.extract([paths[3], paths[0], paths[3]])
        np.testing.assert_allclose(features.load(), expected, atol=1e-5)

    def test_a_dataset_has_labels_and_its_pictures_once(self, extract, cargo, tmp_path):
        arguments = ("--dataset", "CARGO_AG", "--format", "npz", "--output", tmp_path / "out")
        assert extract(*arguments)[0] == 0
        dataset = open_dataset("CARGO_AG", str(cargo))
        expected = {}
        for split in ("train", "query", "gallery"):
            for s in getattr(dataset, split):
                splits = [*expected.get(s.path, [0, 0, 0, []])[3], split]
                camera, person = re.match(r"Cam(\d+)_[a-z]+_(\d+)_", Path(s.path).name).groups()
                view = ("aerial", "ground")[s.viewid]
                expected[s.path] = [s.pid, s.camid, s.viewid, splits, person, camera, view]
        columns = FeatureSet.open(tmp_path / "out").columns()
        names = ("pid", "camid", "viewid", "split", "person", "camera", "view")
        found = dict(zip(columns["path"], zip(*(columns[name] for name in names), strict=True), strict=True))
        assert found == {path: (*row[:3], "+".join(row[3]), *row[4:]) for path, row in expected.items()}
        with np.load(tmp_path / "out" / "features_00000.npz") as shard:
            assert shard["features"].shape == (len(expected), 128)
            for name in ("path", *names):
                assert shard[name].tolist() == columns[name]

    def test_one_split_of_a_dataset(self, extract, cargo, tmp_path):
        arguments = ("--dataset", "CARGO_A2G", "--split", "query", "--output", tmp_path / "out")
        assert extract(*arguments)[0] == 0
        columns = FeatureSet.open(tmp_path / "out").columns()
        assert columns["path"] == [s.path for s in open_dataset("CARGO_A2G", str(cargo)).query]
        assert set(columns["viewid"]) == {0}
        assert set(columns["split"]) == {"query"}

    @pytest.mark.parametrize(
        ("views", "indices"), [("all", [0, 1]), ("none", []), ("ground", [1]), ("1,aerial", [1, 0])]
    )
    def test_views_of_a_stage_2_model(self, checkpoints, paths, tmp_path, views, indices):
        (tmp_path / "list.txt").write_text("\n".join(paths[:2]))
        arguments = ("--checkpoint", checkpoints[2], "--list", tmp_path / "list.txt", "--device", "cpu")
        output = ("--output", tmp_path / "out", "--views", views)
        assert run_tool("extract_features.py", *arguments, *output)[0] == 0
        features = FeatureSet.open(tmp_path / "out")
        assert features.facts["parts"] == ["person", *(("aerial", "ground")[index] for index in indices)]
        expected = ReIDModel.from_checkpoint(checkpoints[2], device="cpu").extract(paths[:2], indices)
        np.testing.assert_allclose(features.load(), expected, atol=1e-5)

    def test_settings_can_be_changed(self, extract, paths, checkpoints, tmp_path):
        (tmp_path / "list.txt").write_text(paths[0])
        flip = ("TEST.FLIP.ENABLED", "True")
        assert extract("--list", tmp_path / "list.txt", "--output", tmp_path / "out", *flip)[0] == 0
        expected = ReIDModel.from_checkpoint(checkpoints[1], device="cpu", options=flip).extract(paths[0])
        assert np.array_equal(FeatureSet.open(tmp_path / "out").load(), expected)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--folder", "{tmp}/empty"], "or .pgm files in"),
            (["--folder", "{tmp}/absent"], "cannot read folder"),
            (["--list", "{tmp}/absent"], "cannot be read"),
            (["--list", "{tmp}/empty/list"], "is empty"),
            (["--list", "{tmp}/list"], "1 of the 1 images"),
            (["--dataset", "CARGO_GA"], "CARGO_"),
            (["--folder", ".", "--split", "query"], "--split is of a dataset"),
            (["--folder", ".", "--shard-size", "0"], "from 1 on"),
            (["--folder", ".", "--list", "x"], "not allowed with"),
            ([], "required"),
        ],
    )
    def test_mistakes_are_one_line(self, extract, tmp_path, arguments, message):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "list").write_text("\n")
        (tmp_path / "list").write_text("no/such/file.jpg")
        code, _, err = extract(*(a.format(tmp=tmp_path) for a in arguments), "--output", tmp_path / "out")
        assert code == 2
        assert message in err
        line = err.strip().splitlines()[-1]
        assert line.startswith("error: ")
        assert not (tmp_path / "out").exists()

    def test_a_bad_picture_stops_it_and_the_same_command_can_go_on_without(self, extract, paths, tmp_path):
        bad = tmp_path / "bad.jpg"
        bad.write_bytes(b"no picture")
        (tmp_path / "list.txt").write_text("\n".join([*paths[:3], str(bad)]))
        command = ("--list", tmp_path / "list.txt", "--output", tmp_path / "out", "--shard-size", 2)
        code, _, err = extract(*command)
        assert code == 2
        assert "bad.jpg" in err
        assert "--skip-bad" in err
        assert shard_files(tmp_path / "out") == ["features_00000.npy"]
        assert extract(*command, "--skip-bad")[0] == 0
        features = FeatureSet.open(tmp_path / "out").load()
        assert np.isfinite(features).all(axis=1).tolist() == [True, True, True, False]


class TestInterruption:
    def test_a_killed_extraction_goes_on_and_ends_with_the_same_bytes(
        self, extract, checkpoints, paths, tmp_path
    ):
        (tmp_path / "list.txt").write_text("\n".join(paths))
        source = ("--list", str(tmp_path / "list.txt"), "--shard-size", "2")
        assert extract(*source, "--output", tmp_path / "undisturbed")[0] == 0

        def kill_in_the_third_shard() -> None:
            save, calls = np.save, []

            def killed(file, features):
                calls.append(file)
                if len(calls) == 3:
                    file.write(b"half a sh")
                    file.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
                save(file, features)

            np.save = killed
            extract(*source, "--output", output)

        output = tmp_path / "killed"
        process = multiprocessing.get_context("fork").Process(target=kill_in_the_third_shard)
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        assert shard_files(output) == ["features_00000.npy", "features_00001.npy"]
        assert len(list(output.glob(".features_00002.npy.*.tmp"))) == 1
        with pytest.raises(UserError, match="2 of 4 shards are missing"):
            FeatureSet.open(output)
        kept = {name: (output / name).stat().st_mtime_ns for name in shard_files(output)}

        assert extract(*source, "--output", output)[0] == 0
        assert {name: (output / name).stat().st_mtime_ns for name in kept} == kept
        undisturbed = {path.name: path.read_bytes() for path in (tmp_path / "undisturbed").iterdir()}
        assert {path.name: path.read_bytes() for path in output.iterdir()} == undisturbed

    def test_a_finished_one_computes_nothing(self, model, paths, tmp_path, monkeypatch):
        extract_to_files(model, {"path": paths}, tmp_path)
        monkeypatch.setattr(ReIDModel, "extract", None)
        assert len(extract_to_files(model, {"path": paths}, tmp_path)) == len(paths)

    def test_a_full_disk_is_named_and_what_is_written_stays(self, model, paths, tmp_path, monkeypatch):
        write, calls = FeatureSet.write_shard, []

        def full(self, number, features, columns):
            calls.append(number)
            if number == 1:
                raise OSError(28, "No space left on device")
            write(self, number, features, columns)

        with monkeypatch.context() as patch:
            patch.setattr(FeatureSet, "write_shard", full)
            with pytest.raises(UserError, match="No space left on device; finished shards are kept"):
                extract_to_files(model, {"path": paths}, tmp_path, shard_size=3)
        features = extract_to_files(model, {"path": paths}, tmp_path, shard_size=3)
        assert calls == [0, 1]
        assert features.missing == []


class TestSharedWork:
    """Several processes share the shards of one folder out."""

    @pytest.fixture
    def several(self, cargo, checkpoints, model, tmp_path) -> tuple[Columns, Path]:
        """A list of 40 pictures in shards of two, and the folder of one process."""
        pictures = sorted(map(str, cargo.rglob("*.jpg")))
        columns = {"path": [pictures[row % len(pictures)] for row in range(40)]}
        extract_to_files(model, columns, tmp_path / "alone", shard_size=2)
        return columns, tmp_path / "alone"

    def test_processes_that_come_and_are_killed_leave_the_same_bytes(self, model, several, tmp_path):
        columns, alone = several
        shared = tmp_path / "shared"

        def work(killed_in: int | None) -> None:
            write, made = FeatureSet.write_shard, []

            def slow(self, number, features, columns):
                made.append(number)
                if len(made) == killed_in:
                    (self.folder / f".{self.shard_path(number).name}.1.tmp").write_bytes(b"half a sh")
                    os.kill(os.getpid(), signal.SIGKILL)
                write(self, number, features, columns)
                time.sleep(0.02)

            FeatureSet.write_shard = slow
            torch.set_num_threads(1)
            extract_to_files(model, columns, shared, shard_size=2)
            os._exit(len(made))

        fork = multiprocessing.get_context("fork")
        workers = [fork.Process(target=work, args=(killed,)) for killed in (None, 3, None, 1)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        one, killed, two, killed_at_once = (worker.exitcode for worker in workers)
        assert (killed, killed_at_once) == (-signal.SIGKILL, -signal.SIGKILL)
        assert one + two + 2 == 20  # each shard once, but for those that a process was killed in
        assert one > 1
        assert two > 1
        expected = {path.name: path.read_bytes() for path in alone.iterdir()}
        assert {path.name: path.read_bytes() for path in shared.iterdir()} == expected

    def test_where_there_are_no_locks_an_unfinished_shard_that_another_removed_is_made_again(
        self, model, several, tmp_path, monkeypatch
    ):
        columns, alone = several
        save = np.save

        def remove_once(file, features):
            monkeypatch.setattr(np, "save", save)
            save(file, features)
            os.unlink(file.name)

        monkeypatch.setattr(np, "save", remove_once)
        extract_to_files(model, columns, tmp_path / "shared", shard_size=2)
        expected = {path.name: path.read_bytes() for path in alone.iterdir()}
        assert {path.name: path.read_bytes() for path in (tmp_path / "shared").iterdir()} == expected

    def test_num_gpus_starts_processes(self, extract, several, tmp_path):
        columns, alone = several
        (tmp_path / "list.txt").write_text("\n".join(columns["path"]))
        arguments = ("--list", tmp_path / "list.txt", "--shard-size", 2, "--output", tmp_path / "shared")
        code, out, _ = extract(*arguments, "--num-gpus", 2)
        assert code == 0
        assert out == f"40 features of 128 numbers: {tmp_path / 'shared'}\n"
        expected = {path.name: path.read_bytes() for path in alone.iterdir()}
        assert {path.name: path.read_bytes() for path in (tmp_path / "shared").iterdir()} == expected

    def test_a_mistake_in_any_process_is_one_line(self, extract, tmp_path, monkeypatch):
        monkeypatch.setattr(workers, "START_METHOD", "fork")
        (tmp_path / "list.txt").write_text("no/such/file.jpg")
        code, out, err = extract(
            "--list", tmp_path / "list.txt", "--output", tmp_path / "out", "--num-gpus", 2
        )
        assert (code, out) == (2, "")
        assert len(err.strip().splitlines()) == 1
        assert "1 of the 1 images" in err


class TestOtherWork:
    """A folder is only gone on with by the work that began it."""

    @pytest.fixture(scope="class")
    def begun(self, model, paths, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("begun")
        extract_to_files(model, {"path": paths}, folder, shard_size=4)
        return folder

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"columns": {"path": ["a.jpg"]}}, r"pictures \(7 of them\)"),
            ({"file_format": "npz"}, "format npy"),
            ({"shard_size": 3}, "shard_size 4"),
            ({"options": ("TEST.FLIP.ENABLED", "True")}, "TEST.FLIP.ENABLED False"),
            ({"options": ("INPUT.SIZE_TEST", "[64, 24]")}, r"INPUT.SIZE_TEST \[64, 32\]"),
        ],
    )
    def test_other_pictures_files_or_settings(self, begun, checkpoints, paths, change, message):
        options = change.pop("options", ())
        if options and options[0].startswith("INPUT"):
            other = ReIDModel.from_checkpoint(checkpoints[1], device="cpu")
            other.cfg.defrost()
            other.cfg.merge_from_list(list(options))
        else:
            other = ReIDModel.from_checkpoint(checkpoints[1], device="cpu", options=options)
        arguments = {"columns": {"path": paths}, "folder": begun, "shard_size": 4} | change
        with pytest.raises(UserError, match=f"holds features of other .*{message}"):
            extract_to_files(other, **arguments)

    def test_other_weights(self, begun, cargo, paths, tmp_path):
        other = ReIDModel.from_checkpoint(write_checkpoint(tmp_path, 1, cargo, seed=2), device="cpu")
        with pytest.raises(UserError, match="holds features of other weights"):
            extract_to_files(other, {"path": paths}, begun, shard_size=4)

    def test_what_no_number_depends_on_may_change(self, begun, checkpoints, paths):
        options = ("TEST.IMS_PER_BATCH", "3", "DATASETS.ROOT", "elsewhere", "SOLVER.BASE_LR", "1.0")
        other = ReIDModel.from_checkpoint(checkpoints[1], device="cpu", options=options)
        extract_to_files(other, {"path": paths}, begun, shard_size=4)

    def test_a_table_of_somebody_else_stays_as_it_is(self, model, paths, tmp_path):
        (tmp_path / "images.csv").write_text("mine")
        with pytest.raises(UserError, match="images.csv is there, but no features.json that says what it is"):
            extract_to_files(model, {"path": paths}, tmp_path)
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("images.csv", "mine")]

    def test_one_that_was_killed_before_its_first_shard_goes_on(self, model, paths, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(feature_files, "atomic_write", None)
            with pytest.raises(TypeError):
                extract_to_files(model, {"path": paths}, tmp_path)
        assert len(extract_to_files(model, {"path": paths}, tmp_path).load()) == len(paths)

    def test_shards_of_unknown_origin(self, model, paths, tmp_path):
        np.save(tmp_path / "features_00000.npy", np.zeros((7, 128), np.float32))
        with pytest.raises(UserError, match="no features.json that says what it is"):
            extract_to_files(model, {"path": paths}, tmp_path)


class TestReading:
    @pytest.fixture
    def written(self, model, paths, tmp_path) -> Path:
        extract_to_files(model, {"path": paths}, tmp_path, shard_size=4)
        return tmp_path

    def test_shards_stay_on_disk_until_they_are_read(self, written):
        parts = list(FeatureSet.open(written).shards())
        assert [(rows.start, rows.stop) for rows, _ in parts] == [(0, 4), (4, 7)]
        assert all(isinstance(part, np.memmap) for _, part in parts)

    @pytest.mark.parametrize("content", [b"", b"rubbish", None])
    def test_a_damaged_shard_is_named(self, written, content):
        path = written / "features_00001.npy"
        if content is None:
            np.save(path, np.zeros((3, 5), np.float32))
        else:
            path.write_bytes(content)
        with pytest.raises(UserError, match="features_00001.npy .*delete it and run the extraction again"):
            FeatureSet.open(written).load()

    @pytest.mark.parametrize("content", [None, "{", "[]", '{"images": 3}'])
    def test_a_folder_without_readable_facts_is_refused(self, written, content):
        (written / "features.json").unlink()
        if content is not None:
            (written / "features.json").write_text(content)
        with pytest.raises(UserError, match="features"):
            FeatureSet.open(written)

    def test_the_facts_name_checkpoint_and_settings(self, written, checkpoints):
        facts = json.loads((written / "features.json").read_text())
        assert facts["checkpoint"]["path"] == str(checkpoints[1])
        assert facts["config"]["INPUT"]["SIZE_TEST"] == [64, 32]
        assert (facts["method"], facts["parts"]) == ("SDReIDStage1", ["person"])
        assert (facts["images"], facts["width"]) == (7, 128)

    def test_any_file_name_survives_the_table(self, tmp_path):
        columns = {
            "path": ['comma, "quote".jpg', "line\nbreak.jpg", "Grüße.jpg", "\udcff.jpg"],
            "pid": [1, -1, 0, 2],
        }
        write_columns(tmp_path / "table.csv", columns)
        assert read_columns(tmp_path / "table.csv") == columns

    def test_a_table_may_be_empty(self, tmp_path):
        write_columns(tmp_path / "table.csv", {"path": [], "pid": []})
        assert read_columns(tmp_path / "table.csv") == {"path": [], "pid": []}

    @pytest.mark.parametrize(
        "content", [None, b"", b"path,pid\na.jpg\n", b"path,pid\na.jpg,x\n", b"path\n\0\xff\n\n"]
    )
    def test_a_table_that_is_none_is_refused(self, tmp_path, content):
        if content is not None:
            (tmp_path / "table.csv").write_bytes(content)
        with pytest.raises(UserError, match="table of pictures .*(cannot be read|'x' is no whole number)"):
            read_columns(tmp_path / "table.csv")
