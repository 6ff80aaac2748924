"""What holds for the repository as a whole: scripts parse, files compile, configurations load."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from worlds.options import REPO, tiny_cfg
from worlds.programs import run_tool

from fastreid.config import load_config

TRAIN = {
    "go/base.sh": "v1/base_stage1.yml v1/base_stage2.yml",
    "CARGO.sh": "CARGO/base_stage1.yml CARGO/base_stage2_step5.yml",
    "run_v2.sh": "v2/base_stage1.yml v2/base_stage2.yml",
    "run_LAGPeR.sh": "LAGPeR/base_stage1.yml LAGPeR/base_stage2.yml",
    "run_G2APS_ReID.sh": "G2APS_ReID/base_stage1.yml G2APS_ReID/base_stage2.yml",
    "run_G2APS_ReID_128.sh": "G2APS_ReID/base_stage1_128.yml G2APS_ReID/base_stage2_128.yml",
}
SCRIPTS = sorted([*REPO.glob("*.sh"), *REPO.glob("go/*.sh"), REPO / ".ci" / "run"])
PARTS = ("benchmarks", "embedded", "methods")  # what the others join
CONFIGS = sorted((REPO / "configs").rglob("*.yml"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_every_file_compiles(tmp_path):
    command = [sys.executable, "-m", "compileall", "-q", "-f", "fastreid", "projects", "tools"]
    subprocess.run(command, cwd=REPO, check=True, env={"PYTHONPYCACHEPREFIX": str(tmp_path)})


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(REPO / "configs")))
def test_every_configuration_loads_from_every_folder(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(str(config.relative_to(REPO)))
    methods = {"stage2": "SDReIDStage2", "vit_baseline": "ViTBaseline", "bot": "BoT", "vdt": "VDT"}
    methods |= {"transreid": "TransReID", "secap": "SeCap", "visa": "ViSA"}
    method = next((methods[part] for part in methods if part in config.name), "SDReIDStage1")
    assert cfg.MODEL.META_ARCHITECTURE == method


def test_a_folder_of_ones_own_named_configs_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "configs" / "v2" / "base_stage1.yml"
    own.parent.mkdir(parents=True)
    own.write_text("OUTPUT_DIR: mine")
    assert load_config("configs/v2/base_stage1.yml").OUTPUT_DIR == "mine"


def test_stage_2_starts_from_the_checkpoint_that_stage_1_writes():
    for config in CONFIGS:
        if "stage2" not in config.name or config.parent.name in PARTS:
            continue
        name = "base_stage1_128.yml" if config.name.endswith("_128.yml") else "base_stage1.yml"
        stage1, stage2 = load_config(str(config.parent / name)), load_config(str(config))
        assert f"{stage1.OUTPUT_DIR}/model_best.pth" == stage2.MODEL.WEIGHTS
        assert stage1.OUTPUT_DIR != stage2.OUTPUT_DIR


def run_bash(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    command = ["bash", "-c", f"set -euo pipefail; source {REPO}/go/lib.sh; {script}"]
    environment = os.environ | variables
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("key", ["OUTPUT_DIR", "MODEL.WEIGHTS", "MODEL.META_ARCHITECTURE"])
def test_the_scripts_refuse_what_both_stages_cannot_share(tmp_path, key):
    done = run_bash(f"train_both_stages one.yml two.yml SOLVER.MAX_EPOCH 1 {key} logs/x", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {key} differs between the stages")


@pytest.fixture
def train_both(tmp_path):
    """`train_both(script, argument, …, fails=N, code=C)` with an interpreter that writes down its arguments.

    Its call number N, from 0, ends with the code C. Returns the script's code, its stderr and the calls.
    """
    python = tmp_path / "an interpreter"
    python.write_text(f"#!{sys.executable}\n{RECORD}")
    python.chmod(0o755)

    def call(script: str, *arguments: str, fails: int = -1, code: int = 2) -> tuple[int, str, list]:
        variables = {"PYTHON_BIN": str(python), "CALLS": str(tmp_path / "calls"), "FAILS": f"{fails} {code}"}
        command = ["bash", str(REPO / script), *arguments]
        environment = os.environ | variables
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        lines = (tmp_path / "calls").read_text().splitlines()
        return done.returncode, done.stderr, [json.loads(line) for line in lines]

    return call


RECORD = """import json, os, sys
with open(os.environ["CALLS"], "a+") as file:
    file.seek(0)
    number = len(file.readlines())
    print(json.dumps(sys.argv[1:]), file=file)
fails, code = map(int, os.environ["FAILS"].split())
sys.exit(code if number == fails else 0)
"""


@pytest.mark.parametrize("script", TRAIN)
def test_a_script_checks_stage_2_then_trains_stage_1_then_stage_2(train_both, script):
    arguments = ["--resume", "--num-gpus", "2", "DATASETS.ROOT", "/my data"]
    code, error, calls = train_both(script, *arguments)
    stage1, stage2 = (["--config-file", f"configs/{name}"] for name in TRAIN[script].split())
    assert (code, error) == (0, "")
    assert calls == [
        ["tools/check_setup.py", *stage2, "--weights-later", *arguments],
        ["tools/train_net.py", *stage1, *arguments],
        ["tools/train_net.py", *stage2, *arguments],
    ]


@pytest.mark.parametrize(("fails", "code"), [(0, 2), (0, 130), (1, 2), (1, 143), (2, 1)])
def test_a_script_ends_with_the_first_command_that_fails(train_both, fails, code):
    ended, error, calls = train_both("CARGO.sh", fails=fails, code=code)
    assert ended == code
    assert len(calls) == fails + 1
    assert ("no training was started" in error) is ((fails, code) == (0, 2))


@pytest.fixture
def both_stages(noise_cargo, tmp_path, python):
    """`both_stages(argument, …)`: the real thing, tiny, on noise; returns the ended script."""
    first = tiny_cfg(noise_cargo, "OUTPUT_DIR", str(tmp_path / "stage1"))
    (tmp_path / "stage1.yml").write_text(first.dump())
    second = tiny_cfg(noise_cargo, "OUTPUT_DIR", str(tmp_path / "stage2"))
    second.use_method("SDReIDStage2")
    second.MODEL.WEIGHTS = str(tmp_path / "stage1/model_best.pth")
    (tmp_path / "stage2.yml").write_text(second.dump())

    def call(*arguments: str) -> subprocess.CompletedProcess:
        configs = f"{tmp_path}/stage1.yml {tmp_path}/stage2.yml"
        script = f"cd {REPO}; train_both_stages {configs} {' '.join(arguments)}"
        return run_bash(script, tmp_path, PYTHON_BIN=str(python))

    return call


def test_what_stage_2_lacks_is_told_before_stage_1(both_stages, tmp_path):
    done = both_stages("MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", "none/unet")
    assert done.returncode == 2
    assert "none/unet/config.json" in done.stdout
    assert "1 error" in done.stdout  # the checkpoint that Stage 1 would write is none
    assert done.stderr.splitlines()[-1].startswith("error: Stage 2 could not start after Stage 1")
    assert not (tmp_path / "stage1").exists()


def test_resumed_after_a_crash_the_script_does_not_train_stage_1_again(both_stages, tmp_path):
    stage1 = ("train_net.py", "--config-file", tmp_path / "stage1.yml")
    evaluations, best = (tmp_path / "stage1" / name for name in ("evaluations.json", "model_best.pth"))
    assert run_tool(*stage1).code == 0
    before = evaluations.read_text(), best.stat().st_mtime_ns
    done = both_stages("--resume")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert said.count("All 2 epochs are done already") == 1
    assert "Making up for the evaluation" not in said
    assert said.count("no checkpoint in") == 1
    assert (evaluations.read_text(), best.stat().st_mtime_ns) == before
    assert (tmp_path / "stage2/model_best.pth").exists()

    for lost in (evaluations, best):  # what the last evaluation writes
        lost.unlink()
    code, out, error = run_tool(*stage1, "--resume")
    assert code == 0
    assert (out + error).count("Making up for the evaluation of epoch 2") == 1
    assert evaluations.read_text() == before[0]
    assert best.exists()


def test_a_compiler_that_makes_nothing_is_told_and_tried_again_next_time(tmp_path):
    folder = tmp_path / "fastreid" / "evaluation" / "rank_cylib"
    folder.mkdir(parents=True)
    (folder / "rank_cy.cpython-39-x86_64-linux-gnu.so").write_text("of another Python")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    done = run_bash("build_extension", tmp_path, PYTHON_BIN="python", TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert "warning: the Cython extension did not build" in done.stderr


def test_nothing_but_the_stated_folders_lies_at_the_top():
    tracked = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    top = {Path(line).parts[0] for line in tracked.splitlines()}
    assert top <= {
        *(
            "configs",
            "fastreid",
            "projects",
            "tools",
            "go",
            "pretrained",
            "tests",
            "docs",
            ".ci",
            ".gitignore",
            "LICENSE",
        ),
        *("README.md", "pyproject.toml", "requirements.txt", "setup.py"),
        *("run_v2.sh", "run_LAGPeR.sh", "run_G2APS_ReID.sh", "run_G2APS_ReID_128.sh", "CARGO.sh"),
    }
