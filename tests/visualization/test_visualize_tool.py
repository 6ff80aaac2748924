"""`tools/visualize.py` on checkpoints as training leaves them, and the browser that `.ci/run` asks for."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from worlds.checkpoints import write_checkpoint
from worlds.options import REPO
from worlds.programs import run_tool

from fastreid.cli import visualize
from fastreid.data import build_test_datasets
from fastreid.engine import load_trained_model, trained_config
from fastreid.evaluation import evaluate_protocols
from fastreid.rendered import BenchmarkSpec, write_benchmark
from fastreid.visualization.run_summary import RunSummary, with_distinct_names

VISUALIZE = "visualize.py"
TESTS = ("DATASETS.TESTS", "['CARGO_A2G', 'CARGO']")


@pytest.fixture(scope="module")
def trained(cargo, tmp_path_factory) -> Path:
    """``stage1`` and ``stage2``, each with config.yaml and a model_best.pth of random weights."""
    folder = tmp_path_factory.mktemp("trained")
    for stage in (1, 2):
        (folder / f"stage{stage}").mkdir()
        write_checkpoint(folder / f"stage{stage}", stage, cargo, options=TESTS)
    return folder


@pytest.fixture(scope="module")
def output(trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    models = ["--config-file", f"{trained}/stage2/config.yaml", "--compare", f"{trained}/stage1/config.yaml"]
    places = ["--output", folder, "--queries", "6", "--length", "4", "--map", "pca"]
    assert run_tool(VISUALIZE, *models, *places, "TEST.EQUAL_TERMS.DISTRACTORS", "3").code == 0
    return folder


def page_data(page: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text())[1])


def test_the_report_shows_both_stages_and_the_real_cameras(output):
    data = page_data(output / "report.html")
    assert data["runs"] == ["SDReIDStage2", "SDReIDStage1"]
    for item in data["lists"]:
        views = [[each["view"] for each in row["generated"]] for row in item["rows"]]
        assert views == [["ground"] if item["protocol"] == "CARGO_A2G" else ["aerial", "ground"], []]
    assert "MODEL.META_ARCHITECTURE" in (output / "report.html").read_text()  # a setting that differs
    assert {item["protocol"] for item in data["lists"]} == {"CARGO_A2G", "CARGO"}
    assert all(len(row["found"]) <= 4 for item in data["lists"] for row in item["rows"])
    for image in data["images"]:  # CARGO_A2G itself has the view in the camera's place
        camera, person = re.match(r"Cam(\d+)_[a-z]+_(\d+)_", image["file"]).groups()
        view = "aerial" if int(camera) <= 5 else "ground"
        assert image["text"] == f"{view} view, camera {camera}, person {person}"


@pytest.mark.parametrize("protocols", ["['CARGO_A2G', 'CARGO']", "['CARGO', 'CARGO_A2G']"])
def test_the_map_names_the_real_cameras_in_any_order_of_protocols(trained, tmp_path, protocols):
    model = ["--config-file", f"{trained}/stage1/config.yaml", "--output", str(tmp_path)]
    ran = run_tool(VISUALIZE, *model, "--queries", "1", "--map", "pca", "DATASETS.TESTS", protocols)
    assert ran.code == 0, ran.err
    charts = json.dumps(page_data(tmp_path / "report.html"))
    cameras = {
        view: {int(camera) for camera in re.findall(rf"person \d+, {view} view, camera (\d+)", charts)}
        for view in ("aerial", "ground")
    }
    assert max(cameras["aerial"]) <= 5 < min(cameras["ground"])
    assert len(cameras["ground"]) > 1


def test_a_model_of_two_views_is_evaluated_on_a_benchmark_of_three(trained, tmp_path):
    write_benchmark("AG_ReID_v2", tmp_path / "data", BenchmarkSpec(2, 4, 2, (64, 32)), workers=0)
    model = ["--config-file", f"{trained}/stage1/config.yaml", "--output", str(tmp_path), "--map", "pca"]
    data = ["DATASETS.ROOT", tmp_path / "data", "DATASETS.TESTS", "['AG_ReID_v2_AW']"]
    assert run_tool(VISUALIZE, *model, *data).code == 0
    data = json.dumps(page_data(tmp_path / "report.html"))
    assert re.search(r"person \d+, wearable view, camera \d", data)
    assert (tmp_path / "prototypes_SDReIDStage1.png").exists()


def test_the_numbers_are_those_of_an_evaluation(output, trained, tmp_path):
    cfg = trained_config(trained / "stage2", options=["OUTPUT_DIR", str(tmp_path)])
    results = evaluate_protocols(cfg, load_trained_model(cfg), build_test_datasets(cfg))
    page = (output / "report.html").read_text()
    rows = re.findall(r"<tr[^>]*><th[^>]*>SDReIDStage2</th>(.*?)</tr>", page, re.DOTALL)
    for row, metrics in zip(rows, results.values(), strict=True):
        shown = [float(value) for value in re.findall(r"<td[^>]*>([\d.]+)\s", row)]
        names = ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP")
        assert shown == [round(metrics[name], 1) for name in names]


def test_pngs_lie_beside_the_report(output):
    names = {path.stem for path in output.glob("*.png")}
    for protocol in ("CARGO_A2G", "CARGO"):
        for kind in ("cmc", "precision_recall", "cameras", "change", "rank_lists"):
            assert f"{kind}_{protocol}" in names
        assert f"generated_{protocol}_SDReIDStage2" in names
    assert {"feature_map_SDReIDStage1", "feature_map_SDReIDStage2", "prototypes_SDReIDStage2"} <= names
    assert {"view_gap_SDReIDStage1", "view_gap_SDReIDStage2"} <= names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "{trained}/none.yaml"], "none.yaml"),
        (["--config-file", "{trained}/data/none"], "none"),
        (["--config-file", "{trained}/stage1/config.yaml", "--weights", "gone.pth"], "gone.pth not found"),
        (
            ["--config-file", "{trained}/stage1/config.yaml", "--compare-weights", "x.pth"],
            "without --compare",
        ),
        (["--config-file", "{trained}/stage1/config.yaml", "--queries", "none"], "expected a number"),
        (["--config-file", "{trained}/stage1/config.yaml", "TEST.METRIK", "cosine"], "TEST.METRIC"),
    ],
)
def test_a_mistake_is_one_line(trained, tmp_path, arguments, message):
    filled = [argument.format(trained=trained) for argument in arguments]
    code, _, error = run_tool(VISUALIZE, *filled, "--output", tmp_path / "report")
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("place", ["file", "file/deep", "/proc/report"])
def test_an_output_that_cannot_be_written_is_one_line_before_any_work(trained, tmp_path, monkeypatch, place):
    (tmp_path / "file").touch()
    monkeypatch.setattr(visualize, "summarise_run", None)
    model = ("--config-file", f"{trained}/stage1/config.yaml")
    code, _, error = run_tool(VISUALIZE, *model, "--output", tmp_path / place)
    assert code == 2
    assert error.startswith("error: --output ")
    assert error.count("\n") == 1


def test_models_of_one_method_are_told_apart():
    def run(checkpoint: str) -> RunSummary:
        return RunSummary("SDReIDStage1", "SDReIDStage1", checkpoint, "cosine", {}, [], None)

    def names(*checkpoints: str) -> list[str]:
        return [named.name for named in with_distinct_names([run(path) for path in checkpoints])]

    assert names("logs/a/model_best.pth") == ["SDReIDStage1"]
    assert names("logs/a/model_best.pth", "logs/b/model_best.pth") == ["a", "b"]
    assert names("logs/a/model_best.pth", "logs/a/model_0005.pth") == [
        "logs/a/model_best.pth",
        "logs/a/model_0005.pth",
    ]


@pytest.mark.parametrize(
    ("commands", "needed"),
    [
        ({"chromium": "exit 0"}, True),
        ({"apt-get": "exit 0", "sudo": 'shift; "$@"'}, True),
        ({"apt-get": "exit 1", "sudo": 'shift; "$@"'}, True),
        ({}, False),
    ],
    ids=["installed", "apt installs it", "apt fails", "no apt"],
)
def test_the_browser_is_needed_where_it_can_be_had(tmp_path, commands, needed):
    for name, content in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{content}\n")
        (tmp_path / name).chmod(0o755)
    for name in ("env", "mktemp"):
        (tmp_path / name).symlink_to(shutil.which(name))
    script = 'set -euo pipefail; source go/lib.sh; ensure_chromium; echo "[${FASTREID_NEED_BROWSER:-}]"'
    environment = {"PATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = [shutil.which("bash"), "-c", script]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[1]\n" if needed else "[]\n")
    assert ("error" in done.stderr) == (commands.get("apt-get") == "exit 1")
