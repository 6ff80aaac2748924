"""The program: one table of everything, exit code 2 for errors, and its cheap part before a training."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from worlds.programs import Ran, run_tool

from fastreid.modeling import build_model, fit_config


@pytest.fixture
def config(cfg, cargo) -> Path:
    """The configuration as a file, with a folder of its own as the working one."""
    path = cargo.parent / "config.yml"
    path.write_text(cfg.dump())
    return path


@pytest.fixture
def check(config) -> Callable[..., tuple[int, str]]:
    """Calls the program; its exit code and what it printed, after checking that it wrote nothing."""

    def call(*arguments: str) -> tuple[int, str]:
        before = sorted(config.parent.rglob("*"))
        ran = run_tool("check_setup.py", "--config-file", config, *arguments)
        assert sorted(config.parent.rglob("*")) == before
        return ran.code, ran.out + ran.err

    return call


@pytest.fixture
def train(config) -> Callable[..., Ran]:
    return partial(run_tool, "train_net.py", "--config-file", config)


def findings_of(text: str) -> dict[str, list[str]]:
    """Level -> checks, from the JSON."""
    by_level: dict[str, list[str]] = {}
    for finding in json.loads(text)["findings"]:
        by_level.setdefault(finding["level"], []).append(finding["check"])
    return by_level


def test_a_good_setup(check):
    code, text = check()
    assert code == 0
    lines = text.splitlines()
    assert lines[0].split() == ["check", "found", "fix"]
    assert lines[-1].startswith("0 errors, ")
    assert lines[-1].endswith(": this configuration can run")
    for part in ("packages", "CARGO_A2G matches", "batches", "schedule", "features", "parameters", "memory"):
        assert any(line.startswith("ok") and f" {part}" in line for line in lines), part
    for part in ("device", "rank kernels", "faiss"):  # what they say depends on the machine
        assert f" {part} " in text


def test_faults_hide_no_other(check, cargo):
    shutil.rmtree(cargo / "query")
    Image.new("RGB", (4, 8)).save(cargo / "train" / "Cam1" / "holiday.jpg")
    code, text = check(
        *("--json", "SOLVER.OPT", "Adm", "MODEL.BACKBONE.PRETRAIN", "True", "SOLVER.WARMUP_ITERS", "100000"),
        *(
            "MODEL.BACKBONE.PRETRAIN_PATH",
            "none.pth",
            "MODEL.DEVICE",
            "tpu7",
            "OUTPUT_DIR",
            str(cargo / "train/x.jpg"),
        ),
    )
    assert code == 2
    found = findings_of(text)
    expected = {"configuration", "device", "CARGO train names", "CARGO_A2G query", "pretrained backbone"}
    assert expected <= set(found["error"])
    assert "the check failed" not in text
    assert "schedule" in found["warning"]
    assert "views of an identity" in found["ok"]
    assert json.loads(text)["errors"] == len(found["error"])


def test_training_data_that_cannot_be_read_leaves_the_batches_out(check, cargo):
    shutil.rmtree(cargo / "train")
    code, text = check("--json")
    found = findings_of(text)
    assert code == 2
    assert found["error"] == ["CARGO train"]
    assert "batches" in found["warning"]
    assert "parameters" in found["ok"]


def test_without_any_data_the_model_is_looked_at_nevertheless(check, cargo):
    shutil.rmtree(cargo)
    found = findings_of(check("--json")[1])
    assert "model" not in found["error"]
    assert {"features", "parameters", "memory"} <= set(found["ok"])


def test_the_same_benchmark_twice_and_the_number_of_views(check):
    code, text = check("--json", "DATASETS.NAMES", "['CARGO', 'CARGO_AG']")
    assert code == 2
    assert "joins the images of" in text
    code, text = check("--json", "MODEL.SDMODEL.VIEW_NUM", "3")
    assert code == 2
    assert findings_of(text)["error"] == ["model"]
    assert "MODEL.SDMODEL.VIEW_NUM is 3" in text


def test_a_config_that_cannot_be_read_is_one_line(check):
    code, text = check("SOLVER.BASE_LT", "1")
    assert code == 2
    assert text.startswith("error: unknown config key 'SOLVER.BASE_LT'")
    assert len(text.splitlines()) == 1


def test_pictures_are_opened_on_request_alone(check, cargo):
    (cargo / "train/Cam1/Cam1_day_10_0.jpg").write_bytes(b"no picture")
    code, text = check("--json")
    assert code == 0
    assert "decoded" not in text
    code, text = check("--json", "--deep", "--workers", "2")
    assert code == 2
    found = findings_of(text)
    assert found["error"] == ["training pictures"]
    assert "test pictures" in found["ok"]


def test_evaluation_alone_needs_a_checkpoint_and_no_training_data(check, cargo):
    shutil.rmtree(cargo / "train")
    code, text = check("--json", "--eval-only")
    assert code == 2
    assert findings_of(text)["error"] == ["weights"]
    assert "MODEL.WEIGHTS is empty" in text


def test_stage_2_without_its_folders(check):
    code, text = check(
        "--json",
        *(
            "MODEL.META_ARCHITECTURE",
            "SDReIDStage2",
            "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH",
            "none/unet",
        ),
    )
    assert code == 2
    found = findings_of(text)
    assert found["error"] == ["weights", "UNet folder"]
    assert "model" in found["warning"]
    assert "batches" in found["ok"]


def test_a_checkpoint_that_is_still_to_be_trained_is_not_looked_for(check, cargo):
    stage2 = ("--json", "MODEL.META_ARCHITECTURE", "SDReIDStage2", "MODEL.WEIGHTS", str(cargo / "none.pth"))
    code, text = check(*stage2)
    assert (code, findings_of(text)["error"]) == (2, ["weights"])
    code, text = check(*stage2, "--weights-later")
    assert code == 0
    assert {"features", "memory"} <= set(findings_of(text)["ok"])
    (cargo / "none.pth").write_text("an earlier run's, which is about to be written anew")
    assert findings_of(check(*stage2, "--weights-later")[1]) == findings_of(text)


@pytest.fixture
def stage2(cfg, cargo) -> list[str]:
    """Options of a Stage 2 on the checkpoint of an untrained Stage 1; a short training of it is done."""
    weights = cargo.parent / "stage1.pth"
    write_stage1(cfg, weights, seed=0)
    short = ["SOLVER.MAX_EPOCH", "1", "SOLVER.ITERS_PER_EPOCH", "1", "TEST.EVAL_PERIOD", "0"]
    return [*short, "MODEL.META_ARCHITECTURE", "SDReIDStage2", "MODEL.WEIGHTS", str(weights)]


def write_stage1(cfg, path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    model = build_model(fit_config(cfg, 6, ("aerial", "ground")))
    torch.save({"model": model.state_dict(), "meta": {"method": "SDReIDStage1", "num_classes": 6}}, path)


def test_a_run_that_is_resumed_is_compared_with_its_checkpoint_and_needs_no_files(check, train, cfg, stage2):
    assert check("--json", *stage2, "--resume")[0] == 0  # there is none yet: it starts afresh
    assert train(*stage2).code == 0
    Path(stage2[-1]).unlink()
    assert findings_of(check("--json", *stage2)[1])["error"] == ["weights"]
    code, text = check("--json", *stage2, "--resume")
    assert code == 0
    assert "resume" in findings_of(text)["ok"]
    code, text = check("--json", *stage2, "--resume", "SOLVER.BASE_LR", "0.5")
    assert (code, findings_of(text)["error"]) == (2, ["resume"])
    assert "SOLVER.BASE_LR 0.5, was" in text


def test_a_stage_2_of_another_stage_1_does_not_pass_for_finished(check, train, cfg, stage2):
    """A run that began anew was cut off in Stage 1: the folder of Stage 2 is the earlier run's."""
    assert train(*stage2).code == 0
    assert train(*stage2, "--resume").code == 0
    write_stage1(cfg, Path(stage2[-1]), seed=1)
    code, _, error = train(*stage2, "--resume")
    assert code == 2
    assert "has started from other weights than" in error.splitlines()[-1]
    assert "run without --resume" in error.splitlines()[-1]
    assert findings_of(check("--json", *stage2, "--resume")[1])["error"] == ["resume"]
    assert check("--json", *stage2, "--resume", "--weights-later")[0] == 0
    assert train(*stage2).code == 0


def test_the_processes_of_several_machines_share_a_batch(check):
    code, text = check("--json", "--num-machines", "2")
    assert code == 0
    assert "4 for each of 2 processes" in text
    assert check("--json", "--num-machines", "8")[0] == 2


def test_a_training_warns_before_it_starts(train, cfg):
    short = ("SOLVER.MAX_EPOCH", "1", "SOLVER.ITERS_PER_EPOCH", "1", "SOLVER.WARMUP_ITERS", "3")
    assert train(*short).code == 0
    log = (Path(cfg.OUTPUT_DIR) / "log.txt").read_text()
    assert log.count("as long as the run of 1") == 1
    assert log.index("as long as the run of 1") < log.index("SDReIDStage1: 48 images")
    assert "batches: 8 images = 2 of 6 identities x 4" in log


def test_a_training_does_not_start_with_what_would_stop_it(train, cfg):
    code, _, error = train("DATALOADER.SAMPLER_TRAIN", "TrainingSampler", "SOLVER.IMS_PER_BATCH", "1")
    assert code == 2
    assert "error: batches: 1 image for each process: batch norm needs two" in error
    assert not Path(cfg.OUTPUT_DIR).exists()
