"""ONNX files of both stages: what is in them, what they compute, and that none is left unless it is right."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from worlds.checkpoints import evaluation_cfg
from worlds.options import DEMO, REPO, TINY
from worlds.programs import run_tool

from fastreid.config import get_cfg
from fastreid.deploy import export_check
from fastreid.deploy.export_check import check_part
from fastreid.deploy.onnx_export import export_model
from fastreid.deploy.onnx_model import OnnxReIDModel
from fastreid.engine import load_trained_model
from fastreid.modeling import build_model, fit_config
from fastreid.modeling.meta_arch.sdreid.onnx_parts import (
    DenoisingStep,
    FeatureFusion,
    image_noise,
    sampling_plan,
)
from fastreid.modeling.meta_arch.sdreid.scheduler_names import DIFFUSION_SCHEDULER_REGISTRY
from fastreid.modeling.meta_arch.sdreid.stage1 import SDReIDStage1
from fastreid.structures import ExportPart
from fastreid.utils.env import preserved_rng_state
from fastreid.utils.errors import UserError


@pytest.fixture(scope="session")
def model() -> SDReIDStage1:
    """A Stage-2 model whose UNet has two levels, all of it random.

    With 32 channels, the UNet's group norms would have a group each and cancel the timestep.
    """
    cfg = get_cfg()
    cfg.merge_from_file(DEMO[2])
    cfg.merge_from_list([*TINY, "MODEL.SDMODEL.UNET_CONFIG.WIDTHS", "[64, 64]"])
    cfg.MODEL.SDMODEL.UNET_CONFIG.TRAINABLE_BLOCK_IDX = []
    with preserved_rng_state(), torch.no_grad():
        torch.manual_seed(0)
        model = build_model(fit_config(cfg, 4, ("aerial", "ground"))).eval()
        for value in (*model.parameters(), model.memory_bank.prototypes):
            value += 0.05 * torch.randn_like(value)
    return model


@pytest.fixture(scope="session")
def exported(model, tmp_path_factory) -> Path:
    """Its export, with .pt2 files; not to be changed."""
    folder = tmp_path_factory.mktemp("exported") / "stage2"
    export_model(model, folder, with_pt2=True)
    return folder


@pytest.fixture
def images() -> torch.Tensor:
    """Five pictures: a number that the export itself does not try."""
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, 64, 32), dtype=torch.uint8, generator=source)


def evaluated(model: SDReIDStage1, images: torch.Tensor, **labels: torch.Tensor) -> np.ndarray:
    """The retrieval features of evaluation."""
    names = [f"{number}.jpg" for number in range(len(images))]
    with torch.inference_mode():
        return model({"images": images, "img_paths": names, **labels}).numpy()


class TestStage2:
    def test_the_files_give_the_features_of_evaluation(self, exported, model, images):
        features = OnnxReIDModel(exported, threads=1).extract(images.numpy())
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, evaluated(model, images), atol=2e-4)

    def test_the_files_are_valid_onnx_with_a_free_batch_size(self, exported):
        names = {}
        for path in exported.glob("*.onnx"):
            onnx.checker.check_model(path, full_check=True)
            graph = onnx.load(path).graph
            names[path.stem] = [value.name for value in (*graph.input, *graph.output)]
            sizes = [value.type.tensor_type.shape.dim for value in (*graph.input, *graph.output)]
            assert {size[0].dim_param for size in sizes if size} == {"batch"}
        assert names == {
            "encoder": ["images", "feature", "id_tokens"],
            "denoiser": ["latents", "timestep", "id_tokens", "views", "prediction"],
            "fusion": ["feature", "latents", "retrieval_feature"],
        }

    def test_the_description_has_the_inputs_and_the_figures(self, exported):
        described = json.loads((exported / "export.json").read_text())
        assert (described["method"], list(described["feature_parts"])) == (
            "SDReIDStage2",
            ["person", "view 0", "view 1"],
        )
        assert described["files"]["encoder"]["inputs"] == {
            "images": {"type": "tensor(uint8)", "shape": ["batch", 3, 64, 32]}
        }
        assert described["files"]["denoiser"]["opset"] >= 18
        checked = {(check["file"], check["batch_size"]) for check in described["checks"]}
        files = ["encoder.onnx", "denoiser.onnx", "fusion.onnx", "encoder.pt2", "denoiser.pt2", "fusion.pt2"]
        assert checked == {(file, size) for file in [*files, "all files"] for size in (1, 3, 8)}
        assert min(check["cosine"] for check in described["checks"]) >= 0.9999

    def test_a_view_and_a_timestep_change_the_prediction(self, exported, images):
        files = OnnxReIDModel(exported, threads=1)
        _, id_tokens = files.encoder.run(None, {"images": images[:2].numpy()})
        latents = np.ones((2, 4, 8, 4), np.float32)

        def predict(timestep: int, views: list[int]) -> np.ndarray:
            conditions = {"id_tokens": id_tokens, "views": np.array(views)}
            inputs = {"latents": latents, "timestep": np.array(timestep), **conditions}
            return files.denoiser.run(None, inputs)[0]

        first, other = predict(500, [0, 0]), predict(500, [0, 1])
        np.testing.assert_allclose(first[0], other[0], atol=1e-5)
        assert not np.allclose(first[1], other[1], atol=1e-3)
        assert not np.allclose(first, predict(20, [0, 0]), atol=1e-3)


OPTIONS = [
    *(["MODEL.SDMODEL.SCHEDULER_CONFIG.NAME", name] for name in DIFFUSION_SCHEDULER_REGISTRY),
    ["TEST.SDMODEL.PREDICTION", "mean"],
    ["TEST.SDMODEL.PREDICTION", "mean", "MODEL.SDMODEL.PREDICTION_TYPE", "v_prediction"],
    ["MODEL.SDMODEL.PREDICTION_TYPE", "sample"],
    ["TEST.SDMODEL.FULL_GUIDANCE_SCALE", "1.0"],
    ["TEST.SDMODEL.NOISE", "per_image"],
    ["TEST.SDMODEL.FUSION", "weighted", "TEST.SDMODEL.VIEW_WEIGHT", "0.3"],
    ["TEST.SDMODEL.GENERATED_NECK", "True"],
    ["TEST.SDMODEL.GENERATED_NECK", "True", "TEST.SDMODEL.REAL_OWN_VIEW", "True"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options[1::2]))
def test_the_plan_and_the_parts_are_the_model_for_every_way_to_sample(checkpoints, images, options):
    cfg = evaluation_cfg(checkpoints[2], *options, "TEST.SDMODEL.NUM_INFERENCE_STEPS", "4")
    model = load_trained_model(cfg)
    plan = sampling_plan(model.generator, views=2)
    noise = image_noise(model, [f"{number}.jpg" for number in range(5)])
    assert (noise is None) == (cfg.TEST.SDMODEL.NOISE == "common")
    if noise is None:
        noise = np.broadcast_to(plan["noise"][:, None], (len(plan["noise"]), 5, *plan["noise"].shape[1:]))

    with torch.inference_mode():
        encoded = model.encode({"images": images})
        step, fusion = DenoisingStep(model), FeatureFusion(model)
        known = [*torch.tensor(noise).flatten(1, 2)]
        for timestep, weights in zip(plan["timesteps"], plan["inputs"], strict=True):
            latents = sum(weight * value for weight, value in zip(weights.tolist(), known, strict=False))
            id_tokens = encoded.id_tokens.repeat_interleave(2, dim=0)
            known.append(step(latents, timestep, id_tokens, torch.arange(2).repeat(5)))
        latents = sum(weight * value for weight, value in zip(plan["final"].tolist(), known, strict=True))
        labels = {name: torch.tensor([0, 1, 1, 0, 1]) for name in model.test_labels}
        features = fusion(model.heads(encoded.features), latents.unflatten(0, (5, 2)), **labels).numpy()
    np.testing.assert_allclose(features, evaluated(model, images, **labels), rtol=1e-3, atol=2e-3)


@pytest.mark.slow
def test_the_views_that_a_model_reads_are_inputs_of_the_files(checkpoints, images, tmp_path):
    options = ["TEST.SDMODEL.GENERATED_NECK", "True", "TEST.SDMODEL.REAL_OWN_VIEW", "True"]
    model = load_trained_model(evaluation_cfg(checkpoints[2], *options, "TEST.SDMODEL.PREDICTION", "mean"))
    export_model(model, tmp_path / "own_view")
    viewids = torch.tensor([0, 1, 1, 0, 1])
    features = OnnxReIDModel(tmp_path / "own_view", threads=1).extract(images.numpy(), viewids=viewids)
    np.testing.assert_allclose(features, evaluated(model, images, viewids=viewids), atol=2e-4)


def test_a_scheduler_that_clips_is_refused(checkpoints):
    model = load_trained_model(evaluation_cfg(checkpoints[2]))
    model.generator.sampler.scheduler.register_to_config(clip_sample=True)
    with pytest.raises(UserError, match="clip_sample"):
        sampling_plan(model.generator, views=2)


class TestCheck:
    def part(self) -> ExportPart:
        return ExportPart("square", torch.nn.Identity(), ("y",), lambda size: {"x": torch.ones(size, 4)})

    def test_what_agrees_passes_with_its_figures(self):
        agreements = check_part(self.part(), "square.onnx", lambda inputs: [inputs["x"] + 0.001])
        assert [agreement.batch_size for agreement in agreements] == [1, 3, 8]
        assert all(agreement.cosine > 0.9999 for agreement in agreements)
        assert agreements[0].difference == pytest.approx(0.001, rel=1e-3)

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda x: x * torch.tensor([1.0, 1.0, 1.0, 0.9]),
            lambda x: torch.cat([x[:-1], -x[-1:]]),
            lambda x: x * float("nan"),
            lambda x: x[:, :2],
            torch.zeros_like,
        ],
        ids=["a little off", "one item of the batch", "not a number", "another shape", "zero"],
    )
    def test_what_does_not_agree_is_an_error(self, wrong):
        with pytest.raises(UserError, match=r"square\.onnx does not compute what PyTorch does: its y"):
            check_part(self.part(), "square.onnx", lambda inputs: [wrong(inputs["x"])])


class TestTool:
    """On the Stage-1 model, whose export is the quickest."""

    def arguments(self, checkpoint: Path, output: Path) -> list:
        config = checkpoint.with_name("config.yaml")
        return ["--config-file", config, "--output", output, "MODEL.WEIGHTS", checkpoint]

    def test_writes_stage_1_and_replaces_an_earlier_export_only_by_a_good_one(
        self, checkpoints, images, tmp_path, monkeypatch
    ):
        output = tmp_path / "deep" / "export"
        code, printed, _ = run_tool("export.py", *self.arguments(checkpoints[1], output))
        assert code == 0
        assert "encoder.onnx" in printed
        assert {path.name for path in output.iterdir()} == {"encoder.onnx", "export.json"}
        features = OnnxReIDModel(output, threads=1).extract(images.numpy())
        expected = evaluated(load_trained_model(evaluation_cfg(checkpoints[1])), images)
        np.testing.assert_allclose(features, expected, atol=2e-4)

        before = {path.name: path.read_bytes() for path in output.iterdir()}
        monkeypatch.setattr(export_check, "MIN_COSINE", 1.1)  # what nothing reaches
        code, _, error = run_tool("export.py", *self.arguments(checkpoints[1], output))
        assert code == 2
        assert "encoder.onnx does not compute what PyTorch does" in error
        assert {path.name: path.read_bytes() for path in output.iterdir()} == before
        assert [path.name for path in output.parent.iterdir()] == ["export"]

    def test_leaves_a_folder_with_other_things_alone(self, checkpoints, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        code, _, error = run_tool("export.py", *self.arguments(checkpoints[1], tmp_path))
        assert code == 2
        assert "is no earlier export" in error
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_says_which_packages_are_missing(self, checkpoints, tmp_path, monkeypatch):
        find_spec = importlib.util.find_spec
        absent = lambda name, *rest: None if name == "onnxscript" else find_spec(name, *rest)  # noqa: E731
        monkeypatch.setattr(importlib.util, "find_spec", absent)
        code, _, error = run_tool("export.py", *self.arguments(checkpoints[1], tmp_path / "export"))
        assert code == 2
        assert error == "error: export needs onnxscript; pip install onnxscript\n"


def test_features_from_files_need_no_pytorch():
    program = "import sys, fastreid.deploy.onnx_model; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPO).returncode == 0
