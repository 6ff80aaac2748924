"""Every benchmark's own configurations, through the commands of the README: train, train, evaluate."""

from pathlib import Path
from typing import NamedTuple

import pytest
from worlds.options import REPO, TINY
from worlds.programs import run_tool

from fastreid.evaluation import report
from fastreid.rendered import LAYOUTS, BenchmarkSpec, write_benchmark


class Benchmark(NamedTuple):
    """A benchmark's own configurations, where they write, and the protocols that they evaluate."""

    configs: tuple[str, str]
    outputs: tuple[str, str]
    protocols: set[str]


BENCHMARKS = {
    "v2": Benchmark(
        ("v2/base_stage1.yml", "v2/base_stage2.yml"),
        ("logs/v2/base_stage1_beta", "logs/v2/base_stage2_tstep800"),
        {"AG_ReID_v2_AC", "AG_ReID_v2_CA", "AG_ReID_v2_AW", "AG_ReID_v2_WA"},
    ),
    "v1": Benchmark(
        ("v1/base_stage1.yml", "v1/base_stage2.yml"),
        ("logs/v1/base_stage1_beta", "logs/v1/base_stage2"),
        {"AG_ReID_v1_AG", "AG_ReID_v1_GA"},
    ),
    "CARGO": Benchmark(
        ("CARGO/base_stage1.yml", "CARGO/base_stage2_step5.yml"),
        ("logs/cargo/base_stage1_beta", "logs/cargo/base_stage2_step5"),
        {"CARGO", "CARGO_GG", "CARGO_AA", "CARGO_AG"},
    ),
    "LAGPeR": Benchmark(
        ("LAGPeR/base_stage1.yml", "LAGPeR/crossview_stage2.yml"),
        ("logs/lagper/base_stage1_beta", "logs/lagper/crossview_stage2"),
        {"LAGPeR_A2G", "LAGPeR_G2A", "LAGPeR_G2AG"},
    ),
    "G2APS_ReID": Benchmark(
        ("G2APS_ReID/base_stage1.yml", "G2APS_ReID/base_stage2.yml"),
        ("logs/g2aps/base_stage1_beta", "logs/g2aps/base_stage2"),
        {"G2APS_ReID_A2G", "G2APS_ReID_G2A"},
    ),
}


EVALUATED_AGAIN = ("v2", "CARGO")  # three views and two; the program is the same for all
PROCESSES = {"CARGO": 2}  # that train, and evaluate what they trained; one evaluates it again


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory) -> Path:
    """A folder with small versions of all five benchmarks in their real layouts."""
    root = tmp_path_factory.mktemp("benchmarks")
    for name in LAYOUTS:
        write_benchmark(name, root, BenchmarkSpec(8, 6, 2, (64, 32)), workers=0)
    return root


def train_net(*arguments: object) -> None:
    """Run the training program, which is to end well."""
    code, out, error = run_tool("train_net.py", *arguments)
    assert code == 0, out[-3000:] + error[-3000:]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_two_stages_train_and_evaluate(name, benchmarks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (config1, config2), (output1, output2), protocols = BENCHMARKS[name]
    common = [*TINY, "MODEL.DEVICE", "auto", "DATASETS.ROOT", benchmarks]
    processes = ["--num-gpus", PROCESSES.get(name, 1)]
    train_net("--config-file", REPO / "configs" / config1, *processes, *common)
    # Stage 2 finds the Stage-1 checkpoint by the default of its configuration.
    train_net("--config-file", REPO / "configs" / config2, *processes, *common)

    for config, output, stage in ((config1, output1, "stage1"), (config2, output2, "stage2")):
        trained = read_results(tmp_path / output)
        assert set(trained) == protocols
        if name not in EVALUATED_AGAIN:
            continue
        weights = ["MODEL.WEIGHTS", f"{output}/model_best.pth", "OUTPUT_DIR", f"again/{stage}"]
        train_net("--config-file", REPO / "configs" / config, "--eval-only", *common, *weights)
        again = read_results(tmp_path / "again" / stage)
        for protocol, metrics in trained.items():
            assert again[protocol] == pytest.approx(metrics, abs=1e-6)
            assert 0 < metrics["mAP"] <= 100


def read_results(folder: Path) -> dict:
    """The metrics of each protocol, as the file of results has them."""
    results = report.read_results(folder)["results"]
    return {
        name: {key: metrics[key] for key in ("Rank-1", "mAP", "mINP")} for name, metrics in results.items()
    }
