"""Tiny models and batches: every part is real, only the sizes are small."""

import pytest
import torch
from toy_conditions import DIM, ID_TOKENS
from worlds.options import TINY
from worlds.programs import run_tool

from fastreid.config import get_cfg
from fastreid.engine import load_trained_model
from fastreid.modeling import build_model


@pytest.fixture
def tiny_cfg():
    """`tiny_cfg(views, "KEY", value, …)`: a configuration of width 128 with 4 blocks on 64x32 images."""

    def build(views: int = 2, *options):
        cfg = get_cfg()
        sizes = ("MODEL.HEADS.NUM_CLASSES", "6", "MODEL.BACKBONE.NUM_LAYERS", "4")
        steps = ("MODEL.SDMODEL.VIEW_NUM", str(views), "TEST.SDMODEL.NUM_INFERENCE_STEPS", "3")
        cfg.merge_from_list([*TINY, *sizes, *steps])
        cfg.merge_from_list(list(options))  # of another method, which need not have those keys
        torch.manual_seed(cfg.MODEL.SEED)
        return cfg

    return build


@pytest.fixture
def make_batch():
    """`make_batch(views, size)`: images of 6 identities, views in turn, as the loaders give them."""

    def build(views: int = 2, size: int = 12, seed: int = 0) -> dict:
        generator = torch.Generator().manual_seed(seed)
        numbers = torch.arange(size)
        return {
            "images": torch.randint(0, 256, (size, 3, 64, 32), dtype=torch.uint8, generator=generator),
            "targets": numbers // 2 % 6,
            "viewids": numbers % views,
            "camids": numbers % views,
            "img_paths": [f"image_{seed}_{number}.jpg" for number in range(size)],
        }

    return build


@pytest.fixture
def randomize():
    """Shifts every parameter of a module at random, so that no zero initialisation hides a part."""

    def apply(module: torch.nn.Module, scale: float = 0.05) -> None:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))

    return apply


@pytest.fixture
def generator(tiny_cfg, randomize):
    """`generator("KEY", value, …)`: a generator whose parameters are all random, in eval mode."""

    def build(*options):
        from fastreid.modeling.meta_arch.sdreid.generator import (
            FeatureGenerator,  # Stage 1 must not import diffusers
        )

        model = FeatureGenerator.from_config(tiny_cfg(2, *options), DIM, ID_TOKENS).eval()
        randomize(model)
        return model

    return build


@pytest.fixture
def stage2(tiny_cfg, randomize):
    """`stage2(views, "KEY", value, …)`: a Stage-2 model with random weights and a filled memory bank."""

    def build(views: int = 2, *options):
        model = build_model(tiny_cfg(views, "MODEL.META_ARCHITECTURE", "SDReIDStage2", *options))
        randomize(model.generator)
        model.memory_bank.update(torch.randn(4 * views, 128), torch.arange(4 * views) % views)
        return model

    return build


@pytest.fixture
def convert_checkpoint(tmp_path):
    """Converts a file that holds `content`, with a yaml of its authors; exit code and what was printed.

    The result is `tmp_path / "ours"`.
    """

    def run(content: dict, yaml: str, *more: str) -> tuple[int, str]:
        torch.save(content, tmp_path / "theirs.pth")
        (tmp_path / "theirs.yml").write_text(yaml)
        files = ["--weights", tmp_path / "theirs.pth", "--config-file", tmp_path / "theirs.yml"]
        output = tmp_path / "ours" / "model_best.pth"
        code, out, error = run_tool("convert_checkpoint.py", *files, "--output", output, *more)
        return code, out + error

    return run


@pytest.fixture
def converted(tmp_path):
    """Gives the model that `convert_checkpoint` wrote, as every tool loads it."""

    def load() -> torch.nn.Module:
        cfg = get_cfg()
        cfg.merge_from_file(tmp_path / "ours" / "config.yaml")
        cfg.freeze()
        return load_trained_model(cfg)

    return load
