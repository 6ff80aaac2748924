"""The contract: every registered method, and the one that docs/new_method.md builds, in every program."""

import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fastreid.cli import (
    check_setup,
    export,
    extract_features,
    profile_complexity,
    search,
    train_net,
    visualize,
)
from fastreid.config.imports import import_user_modules
from fastreid.modeling import META_ARCH_REGISTRY
from fastreid.rendered import BenchmarkSpec, write_benchmark

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "new_method.md"
TOY = "CameraOffset"
METHODS = [*META_ARCH_REGISTRY, TOY]

SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NUM_LAYERS", "3", "MODEL.BACKBONE.FEAT_DIM", "64"),
    *("DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "16", "SOLVER.MAX_EPOCH", "2"),
    *("SOLVER.ITERS_PER_EPOCH", "4", "SOLVER.WARMUP_ITERS", "2", "SOLVER.LOG_PERIOD", "1"),
    *("SOLVER.CHECKPOINT_PERIOD", "1"),
]
# What a method's own networks need to be small.
OWN = {
    "SDReIDStage2": [
        *("MODEL.SDMODEL.UNET_CONFIG.WIDTHS", "[32]", "MODEL.SDMODEL.UNET_CONFIG.TRAIN_ALL", "True"),
        *("MODEL.SDMODEL.UNET_CONFIG.TRAINABLE_BLOCK_IDX", "[]", "TEST.SDMODEL.NUM_INFERENCE_STEPS", "2"),
        *("MODEL.SDMODEL.CON_LEARNER_CONFIG.HEADS", "4", "INPUT.REA.ENABLED", "False"),
    ],
}


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory) -> Path:
    """The method of the documentation, in a file outside of the package."""
    path = tmp_path_factory.mktemp("own") / "camera_offset.py"
    path.write_text(re.search(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[1])
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A DATASETS.ROOT with a small CARGO."""
    root = tmp_path_factory.mktemp("data")
    write_benchmark("CARGO", root, BenchmarkSpec(8, 4, 2, (64, 32)), workers=0)
    return root


def run(command: ModuleType, *arguments: object) -> tuple[int, str, str]:
    """Run a command in this process: exit code, stdout and stderr."""
    out, error, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(error):
        try:
            code = command.main(list(map(str, arguments))) or 0
        except SystemExit as stopped:
            code = stopped.code
    return code, out.getvalue(), error.getvalue()


class World:
    """One method, trained, and the command lines that concern it."""

    def __init__(self, method: str, folder: Path, data: Path, toy_file: Path) -> None:
        self.method, self.folder = method, folder
        imports = ["IMPORTS", f"['{toy_file}']"] if method == TOY else []
        self.allowed = ["--imports", toy_file] if method == TOY else []
        self.options = [*imports, *SMALL, "MODEL.META_ARCHITECTURE", method, *OWN.get(method, [])]
        self.options += ["DATASETS.ROOT", data, "OUTPUT_DIR", folder / method]
        self.checkpoint = folder / method / "model_best.pth"
        self.config = folder / method / "config.yaml"

    def train(self, *arguments) -> None:
        weights = []
        for method in starts_from(self.method):
            weights = ["MODEL.WEIGHTS", self.folder / method / "model_best.pth"]
        base = REPO / "configs" / "demo" / "base_stage1.yml"
        call(train_net, "--config-file", base, *arguments, *self.options, *weights)


def call(command: ModuleType, *arguments: object) -> str:
    """Run a command that is to end well; what it printed."""
    code, out, error = run(command, *arguments)
    assert not code, f"{out[-2000:]}{error[-2000:]}"
    return out


def starts_from(method: str) -> tuple[str, ...]:
    return () if method == TOY else META_ARCH_REGISTRY.get(method).starts_from[:1]


@pytest.fixture(scope="module", params=METHODS)
def world(request, tmp_path_factory, data, toy_file) -> World:
    """The method after a training; methods that start from another one's checkpoint after that one's."""
    folder = tmp_path_factory.mktemp(request.param)
    for method in (*starts_from(request.param), request.param):
        trained = World(method, folder, data, toy_file)
        trained.train()
    return trained


def test_training_writes_what_the_checkpoint_says_of_itself(world):
    meta = torch.load(world.checkpoint, weights_only=True)["meta"]
    assert meta["method"] == world.method
    assert meta["names"]["views"] == ["aerial", "ground"]
    assert meta["names"]["cameras"][0] == "1"
    assert len(meta["names"]["identities"]) == 8
    assert sum(meta["feature_parts"].values()) >= 64


def test_it_resumes(world):
    (world.folder / world.method / "model_final.pth").unlink()
    (world.folder / world.method / "last_checkpoint").write_text("model_0001.pth\n")
    world.train("--resume")
    assert (world.folder / world.method / "model_final.pth").is_file()


def test_it_is_evaluated(world, tmp_path):
    weights = ["MODEL.WEIGHTS", world.checkpoint, "OUTPUT_DIR", tmp_path]
    call(train_net, "--config-file", world.config, "--eval-only", *weights)
    assert json.loads((tmp_path / "results.json").read_text())["results"]["CARGO_A2G"]["mAP"] > 0


def test_it_is_checked(world):
    _, out, _ = run(check_setup, "--config-file", world.config, "--json")
    findings = json.loads(out)["findings"]
    assert {"model", "memory", "parameters"} & {finding["check"] for finding in findings}
    assert [finding for finding in findings if finding["level"] == "error"] == []


def test_it_is_shown(world, tmp_path):
    call(visualize, "--config-file", world.config, "--output", tmp_path, "--map", "pca")
    assert world.method in (tmp_path / "report.html").read_text()


def test_its_features_are_extracted_and_searched(world, tmp_path, data):
    source = ["--dataset", "CARGO_A2G", "--split", "gallery"]
    extract = ["--checkpoint", world.checkpoint, *world.allowed, *source, "--output", tmp_path / "features"]
    call(extract_features, *extract)
    features = np.load(tmp_path / "features" / "features_00000.npy")
    assert np.isfinite(features).all()
    call(search, "build", "--features", tmp_path / "features", "--index", tmp_path / "index")
    pictures = sorted((data / "CARGO" / "query").rglob("*.jpg"))[:2]
    query = ["query", "--index", tmp_path / "index", *world.allowed, "--json"]
    if world.method == TOY:
        rows = "\n".join(f"{path},{int(path.parent.name[3:]) - 1}" for path in pictures)
        (tmp_path / "queries.csv").write_text(f"path,camid\n{rows}\n")
        query += ["--list", tmp_path / "queries.csv"]
    else:
        query += ["--pictures", *pictures]
    answers = json.loads(call(search, *query))["answers"]
    assert [answer["query"] for answer in answers] == [str(path) for path in pictures]


def test_it_is_exported(world, tmp_path):
    weights = ["MODEL.WEIGHTS", world.checkpoint]
    call(export, "--config-file", world.config, "--output", tmp_path / "onnx", *weights)
    assert json.loads((tmp_path / "onnx" / "export.json").read_text())["method"] == world.method


def test_it_is_profiled(world, tmp_path):
    report = tmp_path / "profile.json"
    call(profile_complexity, "--config-file", world.config, "--repeats", "1", "--output", report)
    assert json.loads(report.read_text())["parameters"]["total"]["total"] > 0


def test_what_is_not_told_of_a_picture_is_asked_for_in_one_line(world, tmp_path, data):
    source = ["--folder", data / "CARGO" / "query", "--output", tmp_path / "features"]
    code, _, error = run(extract_features, "--checkpoint", world.checkpoint, *world.allowed, *source)
    if world.method == TOY:
        assert code == 2
        assert "camid" in error
        assert error.count("\n") == 1
    else:
        assert code == 0


def test_a_module_that_only_a_checkpoint_names_is_not_imported(world, tmp_path, data, toy_file):
    if world.method != TOY:
        pytest.skip("needs a method from outside of the package")
    tool = [sys.executable, REPO / "tools" / "extract_features.py", "--checkpoint", world.checkpoint]
    source = ["--dataset", "CARGO_A2G", "--output", tmp_path, "DATASETS.ROOT", data]
    process = subprocess.run([*tool, *source], capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 2
    assert f"--imports {toy_file}" in process.stderr
    assert process.stderr.count("\n") == 1


def test_the_toy_method_is_registered_once_however_often_it_is_named(toy_file):
    for _ in range(2):
        import_user_modules([str(toy_file)], "test")
    assert TOY in META_ARCH_REGISTRY
