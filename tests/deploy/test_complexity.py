"""Parameters, operations, time and memory of a configuration."""

import json
import mmap
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from worlds.checkpoints import evaluation_cfg
from worlds.options import REPO
from worlds.programs import run_tool

from fastreid.config import get_cfg
from fastreid.deploy.model_cost import find_weights, measure_parts, model_size
from fastreid.engine import load_trained_model
from fastreid.modeling.backbones import ViewPromptTransformer
from fastreid.utils.complexity import count_flops, count_parameters, measure, part_names


def vit_flops(patches: int, patch_size: int, width: int, depth: int) -> int:
    """By hand, a multiplication and an addition being two operations."""

    def block(tokens: int) -> int:
        projections = 2 * tokens * width * (3 * width + width)  # query, key, value; output
        attention = 2 * 2 * tokens * tokens * width  # scores; weighted sum
        mlp = 2 * 2 * tokens * width * 4 * width
        return projections + attention + mlp

    patch_projection = 2 * patches * 3 * patch_size**2 * width
    with_class_token = patches + 1
    return patch_projection + (depth - 1) * block(with_class_token) + block(with_class_token + 1)


class TestFlops:
    @pytest.mark.parametrize("device", ["cpu", "meta"])
    def test_of_a_small_vit_are_those_computed_by_hand(self, device):
        with torch.device(device):
            vit = ViewPromptTransformer((64, 32), 8, (8, 8), width=32, depth=3, num_heads=2).eval()
            flops = count_flops(vit, torch.zeros(5, 3, 64, 32), parts=["patch_embed"])
        assert flops["total"] == 5 * vit_flops(patches=32, patch_size=8, width=32, depth=3)
        assert flops["patch_embed"] == 5 * 2 * 32 * 3 * 64 * 32

    def test_counted_without_numbers_are_those_of_the_computation(self, checkpoints):
        cfg = evaluation_cfg(checkpoints[2])
        size = model_size(find_weights(cfg), batch_size=3)
        images = torch.zeros(3, 3, *cfg.INPUT.SIZE_TEST, dtype=torch.uint8)
        computed = count_flops(
            load_trained_model(cfg),
            {"images": images, "img_paths": ["a.jpg"] * 3},
            parts=size.flops.keys() - {"total"},
        )
        assert size.flops == computed
        assert size.flops["generator.unet"] > size.flops["backbone"] > 0

    def test_of_the_papers_models_are_the_known_ones(self):
        cfg = get_cfg()
        cfg.merge_from_file(REPO / "configs" / "v1" / "base_stage2.yml")
        cfg.TEST.SDMODEL.NUM_INFERENCE_STEPS = 1
        size = model_size(find_weights(cfg), batch_size=1)
        parameters = {part: total for part, total, _ in size.parameters}
        assert parameters["generator.unet"] == 859_520_964
        assert size.flops["backbone"] == vit_flops(patches=128, patch_size=16, width=768, depth=12)
        assert float(size.notes[0].split()[1]) == pytest.approx(33.0, rel=0.002)
        assert sum(size.flops[part] for part in parameters if part != "total") == size.flops["total"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # The first guided step has one unconditional latent for each view, which all images share.
        ([], (2 + 2 * 3) + 2 * 2 * 3),
        (["TEST.SDMODEL.NOISE", "per_image"], 2 * (2 * 2 * 3)),
        (["TEST.SDMODEL.PREDICTION", "mean"], 2 * 3),
    ],
)
def test_latents_through_the_unet_for_three_images_two_views_and_two_steps(checkpoints, options, expected):
    (note,) = model_size(find_weights(evaluation_cfg(checkpoints[2], *options)), batch_size=3).notes
    assert note.endswith(f" {expected / 3:g} latents an image")


def test_parameters_are_counted_in_each_part_and_as_a_whole():
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.ModuleDict({"c": nn.Linear(3, 1, bias=False)})})
    model["a"].bias.requires_grad_(False)
    assert part_names(model) == ["a", "b"]
    parts = part_names(model, opened=["b"])
    assert count_parameters(model, parts) == [("a", 9, 6), ("b.c", 3, 3), ("total", 12, 9)]


class TestMeasure:
    def test_repeats_after_a_warm_up(self):
        calls = []
        result = measure(lambda: calls.append(0), torch.device("cpu"), repeats=4)
        assert len(calls) == 5
        assert len(result.seconds) == 4
        assert min(result.seconds) <= result.median <= max(result.seconds)

    def test_sees_memory_that_was_given_back(self):
        def fill(size):  # pages of its own: the allocator may hold freed ones for a tensor
            np.frombuffer(mmap.mmap(-1, size), np.uint8)[:] = 1

        small, large = (
            measure(partial(fill, size), torch.device("cpu"), repeats=1).peak_bytes
            for size in (1, 200_000_000)
        )
        assert large - small > 150e6

    @pytest.mark.parametrize(("stage", "rows"), [(1, ["person"]), (2, ["person", "whole feature"])])
    def test_the_first_part_is_timed_and_where_there_are_more_the_whole(self, checkpoints, stage, rows):
        weights = find_weights(evaluation_cfg(checkpoints[stage]))
        assert list(measure_parts(weights, batch_size=1, repeats=1)) == rows


class TestWeights:
    def test_are_the_checkpoints_where_it_is_of_the_method(self, checkpoints):
        found = find_weights(evaluation_cfg(checkpoints[2]))
        assert (found.cfg.MODEL.HEADS.NUM_CLASSES, found.note, found.loads) == (4, str(checkpoints[2]), True)

    def test_are_random_where_it_is_of_another_method(self, checkpoints):
        found = find_weights(evaluation_cfg(checkpoints[2], "MODEL.WEIGHTS", str(checkpoints[1])))
        assert (found.cfg.MODEL.HEADS.NUM_CLASSES, found.loads) == (4, False)
        assert found.note == f"random ({checkpoints[1]} is of SDReIDStage1)"

    def test_are_random_where_there_is_none(self, checkpoints):
        found = find_weights(evaluation_cfg(checkpoints[1], "MODEL.WEIGHTS", "absent.pth"))
        assert not found.loads
        assert "absent.pth does not exist" in found.note


class TestTool:
    def test_prints_a_table_and_writes_the_same_as_json(self, checkpoints, tmp_path):
        checkpoint, output = checkpoints[1], tmp_path / "cost.json"
        arguments = ["--config-file", checkpoint.with_name("config.yaml"), "--repeats", "2"]
        code, printed, _ = run_tool(
            "profile_complexity.py", *arguments, "--output", output, "MODEL.WEIGHTS", checkpoint
        )
        assert code == 0
        report = json.loads(output.read_text())
        assert str(checkpoint) in printed
        assert f"{report['parameters']['backbone']['total'] / 1e6:.3f}" in printed
        assert f"{report['flops']['total'] / 1e9:.3f}" in printed
        assert list(report["timing"]) == ["person"]
        assert len(report["timing"]["person"]["seconds"]) == 2

    def test_counts_a_full_size_configuration_without_its_files(self, tmp_path):
        config, output = REPO / "configs" / "v2" / "base_stage1.yml", tmp_path / "cost.json"
        code, printed, _ = run_tool(
            "profile_complexity.py", "--config-file", config, "--no-timing", "--output", output
        )
        assert code == 0
        assert "random" in printed
        assert "timing" not in json.loads(output.read_text())

    def test_refuses_a_batch_of_none(self):
        code, _, error = run_tool("profile_complexity.py", "--config-file", "any.yml", "--batch-size", "0")
        assert code == 2
        assert "expected a number from 1 on" in error

    def test_refuses_an_output_that_is_a_folder_before_it_counts(self, tmp_path):
        code, out, error = run_tool("profile_complexity.py", "--config-file", "any.yml", "--output", tmp_path)
        assert (code, out) == (2, "")
        assert error == f"error: --output '{tmp_path}' is a folder, not a file; choose another\n"
