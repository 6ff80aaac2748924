"""The commands of docs/ run as they stand there, in the order they stand there, after the demo."""

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
from worlds.options import REPO

from fastreid.rendered import BenchmarkSpec, make_plan, write_benchmark, writer

DOCS = sorted((REPO / "docs").glob("*.md"))
FILES = {"new_method.md": {"python": "camera_offset.py", "yaml": "camera_offset.yml"}}
PERSONS = {*range(100, 150), *range(251, 261), *range(331, 351)}  # among them those that the pages name
AT_ONCE = 2  # a process has one thread here
BRIEF = ["SOLVER.MAX_EPOCH", "1", "SOLVER.ITERS_PER_EPOCH", "4", "TEST.SDMODEL.NUM_INFERENCE_STEPS", "2"]


def commands_of(page: Path) -> str:
    """The page's bash blocks as one script."""
    return "\n".join(re.findall(r"^```bash\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))


def write_files(page: Path, folder: Path) -> None:
    """Write what the page says that its reader saves: its first block of each language, by name."""
    for language, name in FILES.get(page.name, {}).items():
        block = re.search(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
        (folder / name).write_text(block[1])


@pytest.fixture(scope="module")
def run(python):
    """`run(command, folder)`: with `python` on the PATH, which knows the package; the ended process."""

    def call(command: list[str], folder: Path) -> subprocess.CompletedProcess:
        paths = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPO)}
        return subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | paths,
            text=True,
            timeout=1200,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return call


def render_demo(root: Path) -> None:
    """Write the demo's data, smaller pictures of `PERSONS` alone."""
    counts = r"--train-ids (\d+) --test-ids (\d+) --images-per-camera (\d+)"
    numbers = map(int, re.search(counts, (REPO / "go/demo.sh").read_text()).groups())
    plan = make_plan("CARGO", BenchmarkSpec(*numbers, (64, 32)))
    images = [image for image in plan.images if image.sighting.identity in PERSONS]
    with mock.patch.object(writer, "make_plan", return_value=plan._replace(images=images)):
        write_benchmark("CARGO", root, plan.spec, workers=0)


@pytest.fixture(scope="module")
def after_the_demo(tmp_path_factory, run) -> Path:
    """A folder as the demo leaves it: its data, less most persons, and both stages, hardly trained."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "docs", "fastreid", "go", "tools"):
        (folder / name).symlink_to(REPO / name)
    render_demo(folder / "datasets/demo")
    for stage in (1, 2):
        config = f"configs/demo/base_stage{stage}.yml"
        result = run(["python", "tools/train_net.py", "--config-file", config, *BRIEF], folder)
        assert result.returncode == 0, result.stdout[-3000:]
    return folder


def test_every_command_of_the_documentation_runs(after_the_demo, run):
    def execute(page: Path) -> tuple[Path, subprocess.CompletedProcess]:
        write_files(page, after_the_demo)
        return page, run(["bash", "-euo", "pipefail", "-c", commands_of(page)], after_the_demo)

    pages = [page for page in DOCS if commands_of(page)]
    assert len(pages) >= 5
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(execute, pages))
    failures = [f"{page.name}: {result.stdout[-2000:]}" for page, result in results if result.returncode]
    assert not failures, "\n\n".join(failures)


@pytest.mark.parametrize(("code", "queued"), [(143, True), (0, False), (2, False)])
def test_the_slurm_script_puts_a_run_that_was_stopped_back_into_the_queue(code, queued, tmp_path):
    page = (REPO / "docs/scale.md").read_text()
    script = re.search(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1]
    stubs = {
        "srun": f'eval "$(echo "${{@: -1}}" | sed "s/exec python/echo \\$url/")" >started; exit {code}',
        "scontrol": '[ "$1" = show ] && printf "node1\\nnode2\\n" || echo "$@" >queued',
    }
    for name, text in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NODEID": "1"}
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=os.environ | job | path, check=False)
    assert done.returncode == code
    assert (tmp_path / "queued").exists() == queued
    started = (tmp_path / "started").read_text().split()
    assert started[0] == "tcp://node1:20007"
    assert started[-4:] == ["--machine-rank", "1", "--dist-url", "tcp://node1:20007"]


def test_every_link_between_pages_leads_somewhere():
    for page in [REPO / "README.md", REPO / "pretrained" / "README.md", *DOCS]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(REPO)} links to {target}"
