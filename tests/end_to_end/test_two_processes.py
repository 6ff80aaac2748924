"""Two processes on one machine, without a GPU: the same data, and models that agree."""

import pytest
from worlds.options import REPO, TINY

from fastreid.evaluation.report import read_results


def test_both_stages_train_on_two_processes(benchmarks, run_tool, tmp_path):
    common = ["--num-gpus", "2", *TINY, "DATASETS.ROOT", benchmarks]
    for config in ("base_stage1.yml", "base_stage2_step5.yml"):
        run_tool("train_net.py", "--config-file", REPO / "configs" / "CARGO" / config, *common)

    weights = "logs/cargo/base_stage2_step5/model_best.pth"
    for processes, folder in (("1", "alone"), ("2", "together")):
        options = ["--eval-only", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", folder, "--num-gpus", processes]
        config = REPO / "configs" / "CARGO" / "base_stage2_step5.yml"
        run_tool("train_net.py", "--config-file", config, *common, *options)
    alone, together = (read_results(tmp_path / folder)["results"] for folder in ("alone", "together"))
    for protocol, metrics in alone.items():
        assert together[protocol] == pytest.approx(metrics, abs=1e-6)
