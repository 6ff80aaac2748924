"""Numbers gone bad: the run stops before they reach a checkpoint."""

import re

import torch
from tiny_runs import arguments, train

from fastreid.utils.checkpoint import load_checkpoint


def test_a_diverging_run_stops_with_its_numbers_and_leaves_good_checkpoints(cargo, tmp_path):
    rate = ("SOLVER.BASE_LR", "1e9", "SOLVER.WARMUP_ITERS", "0", "SOLVER.CHECKPOINT_ITERS", "1")
    code, _, error = train(*arguments(1, cargo, tmp_path / "run", *rate))
    assert code == 2
    (said,) = error.splitlines()
    told = re.match(r"error: training diverged at iteration (\d+): loss_.*, learning rate \S+e\+\d+\. ", said)
    assert told, said
    assert re.search("nan|inf", said)
    assert "SOLVER.BASE_LR" in said
    state = load_checkpoint(tmp_path / "run" / "model_latest.pth")
    assert state["iteration"] == int(told[1]) - 1 > 0
    assert all(torch.isfinite(value).all() for value in state["model"].values())
