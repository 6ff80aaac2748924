"""Mistakes of the user, at the command line: one line naming the thing, exit code 2, nothing written."""

import json
import shutil

import pytest
import torch
from conftest import REPO, SHRUNK

CONFIG1 = REPO / "configs" / "CARGO" / "base_stage1.yml"
CONFIG2 = REPO / "configs" / "CARGO" / "base_stage2_step5.yml"


@pytest.fixture
def complaint(run_tool, tmp_path, benchmarks):
    """Run train_net with `arguments`; its one line, after checking what holds for all mistakes."""

    def run(config, *arguments, data=benchmarks) -> str:
        before = sorted(tmp_path.rglob("*"))
        overrides = [*SHRUNK, "DATASETS.ROOT", data, "MODEL.DEVICE", "cpu", *arguments]
        result = run_tool("train_net.py", "--config-file", config, *overrides, expect=2)
        lines = result.err.strip().splitlines()
        assert len(lines) == 1, result.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in result.out
        assert sorted(tmp_path.rglob("*")) == before
        return lines[0]

    return run


@pytest.fixture
def unet_folder(tmp_path):
    """`unet_folder(width)`: a folder that looks like a diffusers UNet with that context width."""

    def build(width: int):
        folder = tmp_path / "unet"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"cross_attention_dim": width, "in_channels": 4}))
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"")
        return folder

    return build


def test_unknown_keys_name_the_nearest(complaint):
    line = complaint(CONFIG1, "SOLVER.BASE_LRR", "0.1")
    assert "SOLVER.BASE_LRR" in line
    assert "'SOLVER.BASE_LR'" in line


def test_wrong_types_name_key_and_value(complaint):
    line = complaint(CONFIG1, "SOLVER.MAX_EPOCH", "many")
    assert "SOLVER.MAX_EPOCH" in line
    assert "'many'" in line


def test_a_missing_config_file_is_named(complaint, tmp_path):
    assert "nowhere.yml" in complaint(tmp_path / "nowhere.yml")


def test_a_missing_dataset_folder_names_path_and_variable(complaint, tmp_path):
    line = complaint(CONFIG1, data=tmp_path / "empty")
    assert str(tmp_path / "empty" / "CARGO") in line
    assert "FASTREID_DATASETS" in line


def test_a_missing_protocol_file_is_named(complaint, tmp_path, benchmarks):
    root = tmp_path / "data"
    shutil.copytree(benchmarks / "LAGPeR", root / "LAGPeR")
    (root / "LAGPeR" / "exp3_A2G+.txt").unlink()
    line = complaint(REPO / "configs" / "LAGPeR" / "base_stage1.yml", data=root)
    assert "exp3_A2G+.txt" in line


def test_missing_vit_weights_say_what_to_download(complaint):
    line = complaint(
        CONFIG1, "MODEL.BACKBONE.PRETRAIN", "True", "MODEL.BACKBONE.PRETRAIN_PATH", "none/vit.pth"
    )
    assert "none/vit.pth" in line
    assert "ownload" in line


@pytest.fixture
def some_weights(tmp_path) -> str:
    torch.save({"model": {"backbone.cls_token": torch.zeros(1, 1, 7)}}, tmp_path / "some.pth")
    return str(tmp_path / "some.pth")


def test_a_missing_unet_folder_says_what_to_download(complaint, some_weights):
    options = ["MODEL.WEIGHTS", some_weights, "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", "none/unet"]
    line = complaint(CONFIG2, *options)
    assert "none/unet" in line
    assert "Stable Diffusion v1.5" in line


def test_a_unet_of_another_width_is_explained(complaint, some_weights, unet_folder):
    options = ["MODEL.WEIGHTS", some_weights, "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", unet_folder(768)]
    line = complaint(CONFIG2, *options)
    assert "768" in line
    assert "128" in line
    assert "FEAT_DIM" in line


def test_stage_2_without_a_stage_1_checkpoint_names_it(complaint):
    line = complaint(CONFIG2)
    assert "logs/cargo/base_stage1_beta/model_best.pth" in line
    assert "Stage 1" in line


def test_evaluation_without_weights_says_which_key(complaint):
    assert "MODEL.WEIGHTS" in complaint(CONFIG1, "--eval-only")


def test_a_checkpoint_of_other_shapes_is_refused(complaint, some_weights):
    line = complaint(CONFIG1, "--eval-only", "MODEL.WEIGHTS", some_weights)
    assert "some.pth" in line


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
def test_unreadable_checkpoints_are_named(complaint, tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    assert "broken.pth" in complaint(CONFIG1, "--eval-only", "MODEL.WEIGHTS", tmp_path / "broken.pth")


def test_a_batch_that_instances_do_not_divide_gives_the_numbers(complaint):
    line = complaint(CONFIG1, "SOLVER.IMS_PER_BATCH", "18")
    assert "18" in line
    assert "NUM_INSTANCE" in line


def test_fewer_identities_than_a_batch_needs_gives_the_numbers(complaint):
    line = complaint(CONFIG1, "SOLVER.IMS_PER_BATCH", "64")
    assert "16 identities" in line
    assert " 8" in line


def test_unknown_registry_names_list_the_known(complaint):
    line = complaint(CONFIG1, "MODEL.META_ARCHITECTURE", "SDReIDStage3")
    assert "SDReIDStage1" in line
    assert "SDReIDStage2" in line


def test_the_number_of_views_must_be_the_benchmarks(complaint):
    line = complaint(CONFIG1, "MODEL.SDMODEL.VIEW_NUM", "3")
    assert "MODEL.SDMODEL.VIEW_NUM" in line


def test_debug_shows_the_traceback(run_tool, tmp_path):
    result = run_tool("train_net.py", "--debug", "--config-file", tmp_path / "nowhere.yml", expect=1)
    assert "Traceback" in result.err
