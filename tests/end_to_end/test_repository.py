"""What holds for the repository as a whole: scripts parse, files compile, configurations load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from worlds.options import REPO

from fastreid.config import load_config

SCRIPTS = sorted([*REPO.glob("*.sh"), *REPO.glob("go/*.sh"), REPO / ".ci" / "run"])
PARTS = ("benchmarks", "methods")  # what the others join
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
    assert cfg.MODEL.META_ARCHITECTURE == ("SDReIDStage2" if "stage2" in config.name else "SDReIDStage1")


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


@pytest.mark.parametrize("key", ["OUTPUT_DIR", "MODEL.WEIGHTS"])
def test_the_scripts_refuse_what_both_stages_cannot_share(tmp_path, key):
    done = run_bash(f"train_both_stages one.yml two.yml SOLVER.MAX_EPOCH 1 {key} logs/x", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {key} differs between the stages")


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
