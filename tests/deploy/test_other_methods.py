"""Methods of one's own in every tool of this room: one that reads cameras and views, and a wide one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds.checkpoints import evaluation_cfg, write_checkpoint
from worlds.methods import CAMERAS, PlainNet, SideNet, registered, write_toy_checkpoint
from worlds.programs import run_tool

from fastreid import ReIDModel
from fastreid.config import get_cfg
from fastreid.data.datasets import open_dataset
from fastreid.deploy.feature_files import FACTS, FeatureSet, extract_to_files
from fastreid.deploy.image_lists import list_file, write_columns
from fastreid.deploy.labels import column_arguments
from fastreid.deploy.onnx_model import OnnxReIDModel
from fastreid.deploy.search import build_index
from fastreid.engine import load_trained_model
from fastreid.evaluation.extraction import extract_over_ranks
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import write_json


@pytest.fixture(autouse=True, scope="module")
def toys():
    with registered(PlainNet, SideNet):
        yield


@pytest.fixture(scope="module")
def side(cargo, tmp_path_factory) -> Path:
    """A checkpoint of a method that reads cameras and views."""
    return write_toy_checkpoint(tmp_path_factory.mktemp("side"), "SideNet", cargo)


@pytest.fixture(scope="module")
def model(side) -> ReIDModel:
    return ReIDModel.from_checkpoint(side, device="cpu")


@pytest.fixture(scope="module")
def samples(cargo):
    return open_dataset("CARGO_AG", str(cargo)).gallery[:6]


@pytest.fixture
def table(samples, tmp_path) -> Path:
    """A CSV list of the samples, views by name."""
    columns = {
        "path": [sample.path for sample in samples],
        "camid": [sample.camid for sample in samples],
        "view": [("aerial", "ground")[sample.viewid] for sample in samples],
    }
    write_columns(tmp_path / "list.csv", columns)
    return tmp_path / "list.csv"


@pytest.fixture(scope="module")
def expected(side, samples) -> np.ndarray:
    """The features of an evaluation."""
    cfg = evaluation_cfg(side)
    return extract_over_ranks(cfg, load_trained_model(cfg), samples).numpy()


class TestLabels:
    def test_names_and_numbers_give_the_features_of_an_evaluation(self, model, samples, expected):
        paths, cameras, views = zip(*((s.path, s.camid, s.viewid) for s in samples), strict=True)
        np.testing.assert_allclose(model.extract(paths, views, cameras=cameras), expected, atol=1e-5)
        named = [CAMERAS[camera] for camera in cameras], [("aerial", "ground")[view] for view in views]
        np.testing.assert_allclose(model.extract(paths, named[1], cameras=named[0]), expected, atol=1e-5)
        first = model.extract(paths[0], named[1][0], cameras=named[0][0])
        np.testing.assert_allclose(first, expected[:1], atol=1e-5)
        assert not np.allclose(model.extract(paths, views, cameras=[12] * 6), expected, atol=1e-2)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"views": [0]}, r"SideNet reads the camera of each picture \(camids\).*cameras=.*camid"),
            ({"cameras": [0]}, r"SideNet reads the view of each picture \(viewids\).*views=.*view"),
            ({"cameras": [0, 1], "views": [0]}, "2 cameras are given for 1 pictures"),
            ({"cameras": ["Cam99"], "views": [0]}, "unknown camera 'Cam99'"),
            ({"cameras": [99], "views": [0]}, "camera 99"),
            ({"cameras": [0], "views": ["wearable"]}, "unknown view 'wearable'.* aerial, ground"),
        ],
    )
    def test_what_is_missing_or_unknown_is_said_in_one_line(self, model, paths, given, message):
        with pytest.raises(UserError, match=message):
            model.extract(paths[0], **given)

    def test_arrays_and_tensors_of_numbers_will_do(self, model, paths):
        expected = model.extract(paths[:2], views=[0, 1], cameras=[0, 1])
        for make in (np.array, torch.tensor):
            found = model.extract(paths[:2], views=make([0, 1]), cameras=make([0, 1]))
            np.testing.assert_array_equal(found, expected)

    def test_what_a_model_does_not_read_is_refused(self, checkpoints, paths):
        plain = ReIDModel.from_checkpoint(checkpoints[1], device="cpu")
        with pytest.raises(UserError, match="cameras are given, which SDReIDStage1 does not read"):
            plain.extract(paths[0], cameras=[0])


class TestTools:
    def test_extraction_reads_the_columns_of_a_list_and_of_a_dataset(self, side, table, expected, tmp_path):
        arguments = ("--checkpoint", side, "--device", "cpu", "--output", tmp_path / "out")
        assert run_tool("extract_features.py", *arguments, "--list", table)[0] == 0
        np.testing.assert_allclose(FeatureSet.open(tmp_path / "out").load(), expected, atol=1e-5)
        arguments = (*arguments[:-1], tmp_path / "gallery", "--split", "gallery")
        assert run_tool("extract_features.py", *arguments, "--dataset", "CARGO_AG")[0] == 0
        np.testing.assert_allclose(FeatureSet.open(tmp_path / "gallery").load()[:6], expected, atol=1e-5)

    def test_a_list_without_the_column_is_one_line(self, side, table, cargo, tmp_path):
        text = table.read_text().replace("camid", "shop")
        table.write_text(text)
        arguments = ("--checkpoint", side, "--device", "cpu", "--output", tmp_path / "out")
        for source in (("--list", table), ("--folder", cargo / "CARGO" / "query")):
            code, _, error = run_tool("extract_features.py", *arguments, *source)
            assert code == 2
            assert "no column camid or camera: SideNet reads the camera of each" in error
            assert not (tmp_path / "out").exists()

    def test_a_list_may_name_cameras_and_views(self):
        columns = {"path": ["a.jpg"], "camera": ["gate"], "view": ["kite"]}
        arguments = column_arguments("SideNet", frozenset({"camids", "viewids"}), columns)
        assert arguments == {"cameras": ["gate"], "views": ["kite"]}

    def test_search_takes_a_list_of_queries(self, model, table, cargo, tmp_path):
        extract_to_files(model, list_file(str(table)), tmp_path / "features")
        build_index(FeatureSet.open(tmp_path / "features"), tmp_path / "index")
        query = ("query", "--index", tmp_path / "index", "--top", 1, "--json", "--device", "cpu")
        code, out, _ = run_tool("search.py", *query, "--list", table)
        assert code == 0
        for answer in json.loads(out)["answers"]:
            assert answer["results"][0]["path"] == answer["query"]
        code, _, error = run_tool("search.py", *query, "--pictures", cargo / "CARGO" / "query")
        assert code == 2
        assert "no column camid" in error

    def test_the_exported_encoder_takes_labels(self, side, model, tmp_path):
        arguments = ("--config-file", side.with_name("config.yaml"), "--output", tmp_path / "export")
        assert run_tool("export.py", *arguments, "MODEL.WEIGHTS", side)[0] == 0
        described = json.loads((tmp_path / "export" / "export.json").read_text())
        assert (described["method"], described["feature_parts"]) == ("SideNet", {"person": 640})
        images = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 32), np.uint8)
        exported = OnnxReIDModel(tmp_path / "export", threads=1)
        features = exported.extract(images, camids=np.arange(5), viewids=[0, 1, 0, 1, 0])
        pictures = [torch.from_numpy(image) for image in images]
        ours = model.extract(pictures, [0, 1, 0, 1, 0], cameras=range(5))
        np.testing.assert_allclose(features, ours, atol=1e-4)
        with pytest.raises(ValueError, match="reads camids, viewids beside images, given: camids"):
            exported.extract(images, camids=np.arange(5))

    def test_the_profile_counts_and_times_it(self, side, tmp_path):
        arguments = ("--config-file", side.with_name("config.yaml"), "--output", tmp_path / "cost.json")
        assert run_tool("profile_complexity.py", *arguments, "--repeats", 1, "MODEL.WEIGHTS", side)[0] == 0
        report = json.loads((tmp_path / "cost.json").read_text())
        assert report["flops"]["backbone"] == 2 * 24 * 640
        assert list(report["timing"]) == ["person"]


def test_a_part_that_is_generated_for_no_view_is_none_of_the_views(side):
    model = ReIDModel.from_checkpoint(side, device="cpu")
    model.model.feature_parts = lambda: {"identity": 3, "view": 2}
    assert model.part_names() == model.part_names(views=[]) == ["identity", "view"]
    with pytest.raises(UserError, match="views aerial: SideNet generates none; leave them out"):
        model.part_names(views="aerial")


@pytest.mark.parametrize("value", ["aerial", ""])
def test_a_list_with_a_number_that_is_none_names_the_picture(tmp_path, value):
    (tmp_path / "list.csv").write_text(f"path,camid,viewid\na.jpg,0,1\nb.jpg,0,{value}\n")
    with pytest.raises(UserError, match=f"column viewid, picture 2: '{value}' is no whole number; give"):
        list_file(tmp_path / "list.csv")


def test_a_wide_backbone_has_wide_features_whatever_feat_dim_says(cargo, tmp_path):
    checkpoint = write_toy_checkpoint(tmp_path, "PlainNet", cargo)
    model = ReIDModel.from_checkpoint(checkpoint, device="cpu")
    assert model.cfg.MODEL.BACKBONE.FEAT_DIM == 128
    assert model.method == "PlainNet"
    assert model.feature_width() == model.extract([]).shape[1] == 640
    features = extract_to_files(
        model, {"path": sorted(map(str, cargo.rglob("query/*/*.jpg")))}, tmp_path / "f"
    )
    assert features.facts["width"] == 640
    build_index(features, tmp_path / "index")
    pictures = ("--pictures", cargo / "CARGO" / "query", "--device", "cpu", "--json")
    assert run_tool("search.py", "query", "--index", tmp_path / "index", *pictures)[0] == 0


class TestViewNames:
    """A view that was renamed after the training keeps its name in the model."""

    @pytest.fixture
    def renamed(self, cargo, paths, tmp_path) -> list[str]:
        """Options of a CSV dataset that says zeppelin today where training said drone."""
        rows = [
            f"{path},{pid},{pid},{view},{split}" for pid, (path, view, split) in enumerate(self.rows(paths))
        ]
        (tmp_path / "data.csv").write_text("\n".join(["path,pid,camid,view,split", *rows]))
        return ["DATASETS.NAMES", "['CSVDataset']", "DATASETS.CSV", str(tmp_path / "data.csv")]

    @staticmethod
    def rows(paths: list[str]) -> list[tuple[str, str, str]]:
        views, splits = ("ground", "zeppelin"), ("train", "query", "gallery")
        return [(path, views[n % 2], splits[n // 2]) for n, path in enumerate(paths[:6])]

    def test_the_checkpoints_names_are_the_models(self, cargo, paths, renamed, tmp_path):
        checkpoint = write_checkpoint(tmp_path, 2, cargo, views=("drone", "ground"))
        model = ReIDModel.from_checkpoint(checkpoint, device="cpu", options=renamed)
        assert model.view_names == ("drone", "ground")
        every = model.extract(paths[:2])
        drone = model.extract(paths[:2], views=["drone"])
        np.testing.assert_allclose(drone, every[:, :256], atol=1e-5)
        np.testing.assert_allclose(model.extract(paths[:2], parts=["drone"]), every[:, 128:256], atol=1e-5)
        parts = model.extract(paths[:2], parts=["ground", "person"])
        np.testing.assert_allclose(parts, np.hstack([every[:, 256:], every[:, :128]]), atol=1e-5)
        with pytest.raises(UserError, match="unknown view 'zeppelin'"):
            model.extract(paths[:2], views=["zeppelin"])
        with pytest.raises(UserError, match="unknown part 'dron' of the feature. Did you mean 'drone'"):
            model.extract(paths[:2], parts=["dron"])

    def test_a_file_from_before_checkpoints_had_names_is_of_the_datasets_views(self, cargo, paths, tmp_path):
        model = ReIDModel.from_checkpoint(write_checkpoint(tmp_path, 2, cargo, views=None), device="cpu")
        assert model.view_names == ("aerial", "ground")
        every = model.extract(paths[:2])
        ground = model.extract(paths[:2], views=["ground"])
        np.testing.assert_allclose(ground, np.hstack([every[:, :128], every[:, 256:]]), atol=1e-5)


class TestEarlierFolders:
    """Folders with a stage and view numbers in the place of a method and parts still open."""

    @pytest.fixture
    def earlier(self, checkpoints, paths, tmp_path) -> Path:
        model = ReIDModel.from_checkpoint(checkpoints[2], device="cpu")
        features = extract_to_files(model, {"path": paths}, tmp_path / "f", views=["ground"], shard_size=4)
        facts = {key: value for key, value in features.facts.items() if key not in ("method", "parts")}
        write_json(tmp_path / "f" / FACTS, facts | {"stage": 2, "views": [1]})
        return tmp_path / "f"

    def test_they_are_indexed_and_searched(self, earlier, paths, tmp_path):
        build_index(FeatureSet.open(earlier), tmp_path / "index")
        query = ("query", "--index", tmp_path / "index", "--device", "cpu", "--json", "--pictures", paths[2])
        code, out, _ = run_tool("search.py", *query)
        assert code == 0
        hit = json.loads(out)["answers"][0]["results"][0]
        assert hit["path"] == paths[2]
        assert hit["score"] > 0.9999

    def test_an_extraction_of_the_same_parts_goes_on(self, earlier, checkpoints, paths):
        (earlier / "features_00001.npy").unlink()
        model = ReIDModel.from_checkpoint(checkpoints[2], device="cpu")
        with pytest.raises(UserError, match="holds features of other parts person, ground"):
            extract_to_files(model, {"path": paths}, earlier, shard_size=4)
        features = extract_to_files(model, {"path": paths}, earlier, views=["ground"], shard_size=4)
        assert features.missing == []


class TestImports:
    """A module that only a stored configuration names is imported when the user allows it."""

    SOURCE = """
from fastreid.modeling import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.sdreid import SDReIDStage1
@META_ARCH_REGISTRY.register("{name}")
class {name}(SDReIDStage1):
    pass
"""

    @pytest.mark.parametrize("place", ["beside", "inside"])
    def test_it_is_asked_for(self, checkpoints, paths, tmp_path, place, own_names):
        name = f"Foreign{place.title()}"
        module = tmp_path / f"{name}.py"
        module.write_text(self.SOURCE.format(name=name))
        cfg = get_cfg()
        cfg.merge_from_file(checkpoints[1].with_name("config.yaml"))
        text = cfg.dump().replace("SDReIDStage1", name).replace("IMPORTS: []", f"IMPORTS: ['{module}']")
        content = torch.load(checkpoints[1], weights_only=True)
        content["meta"] |= {"method": name, "config": text}
        torch.save(content, tmp_path / "model.pth")
        if place == "beside":
            (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=f"{name}.py imported, and a module .*--imports"):
            ReIDModel.from_checkpoint(tmp_path / "model.pth", device="cpu")
        model = ReIDModel.from_checkpoint(tmp_path / "model.pth", device="cpu", imports=[str(module)])
        assert model.method == name
        extract_to_files(model, {"path": paths}, tmp_path / "f")
        index = build_index(FeatureSet.open(tmp_path / "f"), tmp_path / "index")
        assert index.load_model(device="cpu").method == name
