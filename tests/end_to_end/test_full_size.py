"""The paper's sizes on random weights and the CPU: ViT-Base and Stable Diffusion v1.5's UNet."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from worlds.options import REPO

# unet/config.json of Stable Diffusion v1.5, without what its other keys leave at diffusers' defaults.
SD_V1_5_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
SD_V1_5_PARAMETERS = 859_520_964
VIT_BASE_PARAMETERS = 86_567_656  # ViT-Base/16 at 224 with a classifier of 1,000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory through /proc"),
]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """An empty working folder whose `pretrained/` has the layout of pretrained/README.md."""
    folder = tmp_path_factory.mktemp("full_size")
    root = folder / "pretrained" / "stable-diffusion-v1-5"
    unet = UNet2DConditionModel(**SD_V1_5_UNET)
    assert sum(parameter.numel() for parameter in unet.parameters()) == SD_V1_5_PARAMETERS
    unet.save_pretrained(root / "unet")
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        root / "scheduler"
    )
    vit = timm.create_model("vit_base_patch16_224")
    assert sum(parameter.numel() for parameter in vit.parameters()) == VIT_BASE_PARAMETERS
    torch.save(vit.state_dict(), folder / "pretrained" / "jx_vit_base_p16_224-80ecf9dd.pth")
    return folder


# Runs a tool and says the most memory that its process held (Linux).
MEASURED = """
import atexit, os, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))  # as Python does for a program
atexit.register(lambda: print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_measured(command: list[str | Path], folder: Path) -> None:
    """Run a tool; print its seconds and the most memory it held."""
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, command)], cwd=folder, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    kilobytes = int(process.stdout.rsplit("VmHWM:", 1)[1].split()[0])
    what = f"{Path(command[0]).name} {Path(command[2]).name}"
    print(f"\n{what}: {time.perf_counter() - start:.0f} s, peak {kilobytes / 2**20:.1f} GB")


def test_both_stages_train_and_evaluate_at_full_size(pretrained):
    make = [REPO / "tools" / "make_synthetic_benchmark.py", "--benchmark", "AG_ReID_v1", "--root", "datasets"]
    run_measured([*make, "--train-ids", "4", "--test-ids", "2", "--images-per-camera", "2"], pretrained)

    options = ["MODEL.DEVICE", "cpu", "DATASETS.ROOT", "datasets", "DATALOADER.NUM_WORKERS", "0"]
    options += ["DATALOADER.NUM_INSTANCE", "2", "SOLVER.IMS_PER_BATCH", "4"]
    options += ["SOLVER.MAX_EPOCH", "1", "SOLVER.ITERS_PER_EPOCH", "1", "SOLVER.LOG_PERIOD", "1"]
    for stage, folder, width in (
        ("stage1", "logs/v1/base_stage1_beta", 768),
        ("stage2", "logs/v1/base_stage2", 3 * 768),
    ):
        config = REPO / "configs" / "v1" / f"base_{stage}.yml"
        run_measured([REPO / "tools" / "train_net.py", "--config-file", config, *options], pretrained)
        output = pretrained / folder
        losses = json.loads((output / "metrics.json").read_text().splitlines()[0])
        assert losses["total_loss"] > 0
        results = json.loads((output / "results.json").read_text())["results"]
        assert set(results) == {"AG_ReID_v1_AG", "AG_ReID_v1_GA"}
        assert all(0 < metrics["mAP"] <= 100 for metrics in results.values())
        assert feature_width(output / "model_final.pth") == width


def feature_width(checkpoint: Path) -> int:
    """Numbers in a retrieval feature of the checkpoint's model: the person's, and one part for each view."""
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["model"]
    views, dim = weights["memory_bank.prototypes"].shape
    generates = any(key.startswith("generator.unet.") for key in weights)
    return dim * (1 + views * generates)
