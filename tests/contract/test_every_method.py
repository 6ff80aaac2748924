"""The contract: every registered method, and the one that docs/new_method.md builds, in every program."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds.options import ANY_METHOD, DEMO, OWN, REPO
from worlds.programs import run_tool

from fastreid.config import load_config
from fastreid.config.imports import import_user_modules
from fastreid.engine import load_trained_model
from fastreid.evaluation.report import read_results
from fastreid.modeling import META_ARCH_REGISTRY

PAGE = REPO / "docs" / "new_method.md"
TOY = "CameraOffset"
METHODS = [*META_ARCH_REGISTRY, TOY]

# What a method reads of a picture beside its pixels.
READS = {TOY: "camid", "TransReID": "camid", "ViSA": "viewid"}


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory) -> Path:
    """The method of the documentation, in a file outside of the package."""
    path = tmp_path_factory.mktemp("own") / "camera_offset.py"
    path.write_text(re.search(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[1])
    return path


class World:
    """One method, trained, and the command lines that concern it."""

    def __init__(self, method: str, folder: Path, data: Path, toy_file: Path) -> None:
        self.method, self.folder = method, folder
        self.reads = READS.get(method)
        self.batch_dependent = method != TOY and META_ARCH_REGISTRY.get(method).batch_dependent
        imports = ["IMPORTS", f"['{toy_file}']"] if method == TOY else []
        self.allowed = ["--imports", toy_file] if method == TOY else []
        self.options = [*imports, *ANY_METHOD, "MODEL.META_ARCHITECTURE", method, *OWN.get(method, [])]
        self.options += ["SOLVER.CHECKPOINT_PERIOD", "1", "DATASETS.TESTS", "['CARGO_A2G']"]
        self.options += ["DATASETS.ROOT", data, "OUTPUT_DIR", folder / method]
        self.checkpoint = folder / method / "model_best.pth"
        self.config = folder / method / "config.yaml"
        self.named = ["--model", folder / method, *self.allowed]

    def train(self, *arguments) -> None:
        weights = []
        for method in starts_from(self.method):
            weights = ["MODEL.WEIGHTS", self.folder / method / "model_best.pth"]
        call("train_net.py", "--config-file", DEMO[1], *arguments, *self.options, *weights)


def call(name: str, *arguments: object) -> str:
    """Run a program that is to end well; what it printed."""
    code, out, error = run_tool(name, *arguments)
    assert not code, f"{out[-2000:]}{error[-2000:]}"
    return out


def starts_from(method: str) -> tuple[str, ...]:
    return () if method == TOY else META_ARCH_REGISTRY.get(method).starts_from[:1]


@pytest.fixture(scope="module")
def train_once(tmp_path_factory, cargo, toy_file):
    """Trains a method the first time that it is asked for, after the one whose checkpoint it starts from."""
    folder, worlds = tmp_path_factory.mktemp("trained"), {}

    def train(method: str) -> World:
        for name in (*starts_from(method), method):
            if name not in worlds:
                worlds[name] = World(name, folder, cargo, toy_file)
                worlds[name].train()
        return worlds[method]

    return train


@pytest.fixture(scope="module", params=METHODS)
def world(request, train_once) -> World:
    return train_once(request.param)


def test_training_writes_what_the_checkpoint_says_of_itself(world):
    meta = torch.load(world.checkpoint, weights_only=True)["meta"]
    assert meta["method"] == world.method
    assert meta["names"]["views"] == ["aerial", "ground"]
    assert meta["names"]["cameras"][0] == "1"
    assert len(meta["names"]["identities"]) == 8
    assert sum(meta["feature_parts"].values()) >= 64


def test_it_resumes_exactly(world):
    final = torch.load(world.folder / world.method / "model_final.pth", weights_only=True)["model"]
    (world.folder / world.method / "model_final.pth").unlink()
    (world.folder / world.method / "last_checkpoint").write_text("model_0001.pth\n")
    world.train("--resume")
    resumed = torch.load(world.folder / world.method / "model_final.pth", weights_only=True)["model"]
    assert resumed.keys() == final.keys()
    assert all(torch.equal(resumed[name], final[name]) for name in final)


def test_it_is_evaluated(world, tmp_path):
    call("train_net.py", "--eval-only", *world.named, "--num-gpus", "1", "OUTPUT_DIR", tmp_path)
    assert read_results(tmp_path)["results"]["CARGO_A2G"]["mAP"] > 0


def test_it_is_checked(world):
    _, out, _ = run_tool("check_setup.py", "--config-file", world.config, "--json")
    findings = json.loads(out)["findings"]
    assert {"model", "memory", "parameters"} & {finding["check"] for finding in findings}
    assert [finding for finding in findings if finding["level"] == "error"] == []


def test_it_is_shown(world, tmp_path):
    call("visualize.py", *world.named, "--output", tmp_path, "--map", "pca")
    assert world.method in (tmp_path / "report.html").read_text()


def test_its_features_are_extracted_and_searched(world, tmp_path, cargo):
    if world.batch_dependent:
        pytest.skip("a feature depends on its batch: refused, see tests/modeling/sdreid/test_as_released.py")
    source = ["--dataset", "CARGO_A2G", "--split", "gallery"]
    call("extract_features.py", *world.named, *source, "--output", tmp_path / "features")
    features = np.load(tmp_path / "features" / "features_00000.npy")
    assert np.isfinite(features).all()
    call("search.py", "build", "--features", tmp_path / "features", "--index", tmp_path / "index")
    pictures = sorted((cargo / "CARGO" / "query").rglob("*.jpg"))[:2]
    query = ["query", "--index", tmp_path / "index", *world.allowed, "--json"]
    if world.reads:
        cameras = [int(path.parent.name[3:]) - 1 for path in pictures]
        labels = {"camid": cameras, "viewid": [int(camera >= 5) for camera in cameras]}[world.reads]
        rows = "\n".join(f"{path},{label}" for path, label in zip(pictures, labels, strict=True))
        (tmp_path / "queries.csv").write_text(f"path,{world.reads}\n{rows}\n")
        query += ["--list", tmp_path / "queries.csv"]
    else:
        query += ["--pictures", *pictures]
    answers = json.loads(call("search.py", *query))["answers"]
    assert [answer["query"] for answer in answers] == [str(path) for path in pictures]


def test_it_is_exported_unless_a_feature_depends_on_its_batch(world, tmp_path):
    command = ["export.py", *world.named, "--output", tmp_path / "onnx"]
    if world.batch_dependent:
        code, _, error = run_tool(*command)
        assert code == 2
        assert error.count("\n") == 1
        return
    call(*command)
    assert json.loads((tmp_path / "onnx" / "export.json").read_text())["method"] == world.method


def test_it_is_profiled(world, tmp_path):
    report = tmp_path / "profile.json"
    call("profile_complexity.py", *world.named, "--repeats", "1", "--output", report)
    profile = json.loads(report.read_text())
    assert profile["parameters"]["total"]["total"] > 0
    assert profile["weights"] == str(world.checkpoint)


def test_what_is_not_told_of_a_picture_is_asked_for_in_one_line(world, tmp_path, cargo):
    source = ["--folder", cargo / "CARGO" / "query", "--output", tmp_path / "features"]
    code, _, error = run_tool("extract_features.py", *world.named, *source)
    if world.batch_dependent:
        assert code == 2
    elif world.reads:
        assert code == 2
        assert world.reads in error
        assert error.count("\n") == 1
    else:
        assert code == 0


def test_labels_that_it_does_not_say_it_reads_change_nothing(world):
    """Those that it does say change the features, so that the test cannot pass by chance."""
    model = load_trained_model(load_config(str(world.config), ["MODEL.WEIGHTS", str(world.checkpoint)]))
    rng, names = torch.Generator().manual_seed(0), ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    batch = {"images": torch.randint(0, 256, (4, 3, 64, 32), dtype=torch.uint8, generator=rng)}
    batch |= {"img_paths": names, "camids": torch.tensor([0, 2, 6, 8]), "viewids": torch.tensor([0, 0, 1, 1])}

    def features(**labels):
        model.on_evaluation_start()
        with torch.inference_mode():
            return model(batch | labels)

    own = features()
    for label in ("camids", "viewids"):
        same = torch.equal(features(**{label: batch[label].flip(0)}), own)
        assert same == (label not in model.test_labels), label


def test_what_it_generates_for_views_is_as_wide_as_its_real_features(world):
    model = load_trained_model(load_config(str(world.config), ["MODEL.WEIGHTS", str(world.checkpoint)]))
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8, generator=rng)
    batch = {"images": images, "img_paths": ["a.jpg", "b.jpg"]}
    batch |= {"camids": torch.tensor([0, 6]), "viewids": torch.tensor([0, 1])}
    with torch.inference_mode():
        real = model.real_features(model.encode(batch), batch)
    widths = model.feature_parts()
    assert {widths[name] for name in model.view_parts()} <= {real.shape[1]}
    assert real.dtype == torch.float32


def test_a_module_that_only_a_checkpoint_names_is_not_imported(world, tmp_path, cargo, toy_file):
    if world.method != TOY:
        pytest.skip("needs a method from outside of the package")
    tool = [sys.executable, REPO / "tools" / "extract_features.py", "--checkpoint", world.checkpoint]
    source = ["--dataset", "CARGO_A2G", "--output", tmp_path, "DATASETS.ROOT", cargo]
    process = subprocess.run([*tool, *source], capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 2
    assert f"--imports {toy_file}" in process.stderr
    assert process.stderr.count("\n") == 1


def test_the_toy_method_is_registered_once_however_often_it_is_named(toy_file):
    for _ in range(2):
        import_user_modules([str(toy_file)], "test")
    assert TOY in META_ARCH_REGISTRY
