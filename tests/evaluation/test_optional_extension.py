"""The compiled kernels are optional: building them, failing to, and doing without."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = "fastreid.evaluation.rank_cylib.rank_cy"

SCORE_WITHOUT_EXTENSION = f"""
import logging, sys
sys.modules[{MODULE!r}] = None  # importing it raises ImportError
logging.basicConfig(format="%(levelname)s %(message)s")
import numpy as np
from oracles import Problem, float64_distances, rank_by_sorting
from fastreid.evaluation import evaluate_features, evaluate_rank
from fastreid.evaluation.rank import rank_kernels
assert rank_kernels().__name__ == "fastreid.evaluation.rank_numpy"
rng = np.random.default_rng(0)
problem = Problem(*(rng.integers(0, high, n) for high in (5, 3) for n in (12, 70)))
features = rng.normal(size=(82, 6)).astype(np.float32)
distmat = float64_distances(features[:12], features[12:], "euclidean")
expected = rank_by_sorting(distmat, problem)
for actual in (
    evaluate_rank(distmat, *problem),
    evaluate_features(features[:12], features[12:], *problem, "euclidean"),
):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, atol=1e-12)
assert "faiss" not in sys.modules
print("scored")
"""


def run(command, **kwargs):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_without_the_extension_numpy_scores_and_one_warning_says_so():
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "evaluation")])
    done = run([sys.executable, "-c", SCORE_WITHOUT_EXTENSION], env=os.environ | {"PYTHONPATH": paths})
    assert done.stdout == "scored\n"
    assert done.stderr.count("WARNING") == 1
    assert "python setup.py build_ext --inplace" in done.stderr


@pytest.fixture
def kernel_folder(tmp_path):
    source = ROOT / "fastreid" / "evaluation" / "rank_cylib"
    folder = tmp_path / "rank_cylib"
    folder.mkdir()
    for name in ("setup.py", "rank_cy.pyx", "__init__.py"):
        shutil.copy(source / name, folder)
    return folder


def test_a_failing_build_warns_and_goes_on(kernel_folder):
    build = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = run(build, cwd=kernel_folder, env=os.environ | {"CC": "false"})
    assert "WARNING: rank_cy is left out" in done.stderr
    assert not list(kernel_folder.glob("rank_cy*" + sysconfig.get_config_var("EXT_SUFFIX")))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_package_installs_with_an_extension_even_by_a_compiler_without_openmp(tmp_path):
    """`pip install .` from a copy of the source, used from another folder."""
    source, target = tmp_path / "source", tmp_path / "target"
    unbuilt = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "build")
    shutil.copytree(ROOT / "fastreid", source / "fastreid", ignore=unbuilt)
    shutil.copytree(ROOT / "configs", source / "configs")
    for name in ("setup.py", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, source)
    compiler = tmp_path / "cc-without-openmp"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation"]
    run([*pip, "--target", str(target), str(source)], env=os.environ | {"CC": str(compiler)})

    script = (
        f"import {MODULE} as module; from fastreid.config.files import find_config;"
        "print(module.__file__, find_config('configs/v2/base_stage1.yml'))"
    )
    environment = os.environ | {"PYTHONPATH": str(target)}
    done = run([sys.executable, "-c", script], cwd=tmp_path, env=environment)
    kernels, config = map(Path, done.stdout.split())
    assert kernels.is_relative_to(target)
    assert config == target / "fastreid" / "configs" / "v2" / "base_stage1.yml"
    assert (config.parent / "../methods/sdreid_stage1.yml").is_file()
    assert (target / "fastreid" / "rendered" / "__init__.py").is_file()
    assert "commands:" in run([target / "bin" / "fastreid", "--help"], cwd=tmp_path, env=environment).stdout
