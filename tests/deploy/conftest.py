"""A small rendered CARGO, a checkpoint of each stage with random weights, and the tools in this process."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastreid.config import CfgNode, get_cfg
from fastreid.data.synthetic import BenchmarkSpec, write_benchmark
from fastreid.modeling import build_model
from fastreid.utils.env import preserved_rng_state

REPO = Path(__file__).resolve().parents[2]
TINY = [
    *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NUM_LAYERS", "3", "MODEL.BACKBONE.FEAT_DIM", "128"),
    *("MODEL.SDMODEL.UNET_CONFIG.WIDTHS", "[32, 64, 64]", "MODEL.HEADS.NUM_CLASSES", "4"),
    *("TEST.SDMODEL.NUM_INFERENCE_STEPS", "2", "TEST.IMS_PER_BATCH", "4", "DATALOADER.NUM_WORKERS", "0"),
]


@pytest.fixture(scope="session")
def cargo(tmp_path_factory) -> Path:
    """A DATASETS.ROOT with a small CARGO of 96x48 pictures; not to be changed."""
    root = tmp_path_factory.mktemp("rendered")
    write_benchmark("CARGO", root, BenchmarkSpec(4, 3, 2, (96, 48)), workers=0)
    return root


@pytest.fixture(scope="session")
def paths(cargo) -> list[str]:
    """Seven of its pictures."""
    return sorted(str(path) for path in cargo.rglob("train/*/*.jpg"))[:7]


@pytest.fixture(scope="session")
def checkpoints(cargo, tmp_path_factory) -> dict[int, Path]:
    """``{stage: model_best.pth}``, each with its config.yaml beside it; not to be changed."""
    return {
        stage: write_checkpoint(tmp_path_factory.mktemp(f"stage{stage}"), stage, cargo) for stage in (1, 2)
    }


def write_checkpoint(folder: Path, stage: int, data: Path, seed: int = 1) -> Path:
    """What training leaves behind, but that every weight, statistic and prototype is random."""
    cfg = get_cfg()
    cfg.merge_from_file(REPO / "configs" / "demo" / f"base_stage{stage}.yml")
    cfg.merge_from_list([*TINY, "DATASETS.ROOT", str(data), "OUTPUT_DIR", str(folder)])
    with preserved_rng_state():
        torch.manual_seed(seed)
        model = build_model(cfg)
        with torch.no_grad():
            for value in (*model.parameters(), *model.memory_bank.buffers()):
                if value.is_floating_point():
                    value += 0.05 * torch.randn_like(value)
            for name, value in model.named_buffers():
                if name.endswith("running_var"):
                    value.uniform_(0.5, 2)
    meta = {"stage": stage, "num_classes": 4, "config": cfg.dump()}
    torch.save({"model": model.state_dict(), "meta": meta}, folder / "model_best.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder / "model_best.pth"


def evaluation_cfg(checkpoint: Path, *options: str) -> CfgNode:
    """The configuration of ``train_net.py --eval-only`` with that checkpoint."""
    cfg = get_cfg()
    cfg.merge_from_file(checkpoint.with_name("config.yaml"))
    cfg.merge_from_list(["MODEL.WEIGHTS", str(checkpoint), *options])
    return cfg


@pytest.fixture
def run_tool(capsys) -> Callable[..., tuple[int, str, str]]:
    """`run_tool("search.py", argument, …)`: exit code, stdout and stderr of the tool, in this process."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        spec = importlib.util.spec_from_file_location("tool", REPO / "tools" / name)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        capsys.readouterr()
        code = 0
        try:
            tool.main(list(map(str, arguments)))
        except SystemExit as stopped:
            code = stopped.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
