"""A trained model needs its checkpoint and nothing of the data that it was trained on."""

from pathlib import Path

import pytest
import torch
from worlds.options import tiny_cfg

from fastreid.engine import default_argument_parser, find_checkpoint, load_trained_model, trained_config
from fastreid.engine.defaults import read_config
from fastreid.modeling import build_model, fit_config
from fastreid.structures import DataNames
from fastreid.utils.errors import UserError

NAMES = DataNames(("7", "9", "12"), {0: "Cam1", 5: "Cam6"}, ("drone", "ground", "wearable"))


@pytest.fixture
def trained(tmp_path):
    """`trained(meta, "KEY", value, …)`: a model, and what is loaded from its file with that ``meta``."""

    def load(meta: dict, *options: str):
        cfg = tiny_cfg(tmp_path)
        model = build_model(fit_config(cfg, 3, NAMES.views))
        torch.save({"model": model.state_dict(), "meta": meta}, tmp_path / "model.pth")
        cfg.merge_from_list(["MODEL.WEIGHTS", str(tmp_path / "model.pth"), *options])
        return model, load_trained_model(cfg)

    return load


def test_names_and_numbers_are_the_checkpoints(trained):
    meta = {"method": "SDReIDStage1", "num_classes": 3, "names": NAMES.to_dict()}
    source, model = trained(meta)
    assert model.names == NAMES
    assert not model.training
    assert (model.cfg.MODEL.HEADS.NUM_CLASSES, model.cfg.MODEL.SDMODEL.VIEW_NUM) == (3, 3)
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("meta", [{}, {"stage": 1, "num_classes": 3}])
def test_a_file_from_before_names_were_stored_tells_the_views_by_its_weights(trained, meta):
    source, model = trained(meta)
    assert model.names == DataNames()
    assert model.view_names() == ["view 0", "view 1", "view 2"]
    assert torch.equal(model.memory_bank.prototypes, source.memory_bank.prototypes)


@pytest.mark.parametrize("meta", [{"stage": 1}, {"method": "SDReIDStage1"}])
def test_a_checkpoint_of_another_method_is_refused(trained, meta):
    said = "is a checkpoint of SDReIDStage1, but the config evaluates SDReIDStage2; use the config of"
    with pytest.raises(UserError, match=said):
        trained(meta, "MODEL.META_ARCHITECTURE", "SDReIDStage2")


def test_a_number_of_views_that_contradicts_the_names_is_an_error(trained):
    with pytest.raises(UserError, match="VIEW_NUM is 2.*3 views .drone, ground, wearable."):
        trained({"names": NAMES.to_dict()}, "MODEL.SDMODEL.VIEW_NUM", "2")


class TestNamesOfAModel:
    @pytest.fixture
    def run(self, tmp_path) -> Path:
        """A run's folder, moved since: its final checkpoint, and config.yaml with another batch size."""
        run, cfg = tmp_path / "moved", tiny_cfg(tmp_path)
        run.mkdir()
        torch.save({"model": {"w": torch.zeros(1)}, "meta": {"config": cfg.dump()}}, run / "model_final.pth")
        cfg.TEST.IMS_PER_BATCH = 5
        (run / "config.yaml").write_text(cfg.dump())
        return run

    def test_a_folder_means_its_best_checkpoint_or_else_its_final_one(self, run):
        assert find_checkpoint(run) == run / "model_final.pth"
        (run / "model_best.pth").touch()
        assert find_checkpoint(run) == run / "model_best.pth"
        assert find_checkpoint(run / "model_final.pth") == run / "model_final.pth"

    @pytest.mark.parametrize("name", [".", "gone.pth", "gone"])
    def test_where_there_is_none_one_line_says_so(self, tmp_path, name):
        with pytest.raises(UserError, match=r"no model_best.pth or model_final.pth in|gone.* not found"):
            find_checkpoint(tmp_path / name)

    def test_its_configuration_is_that_beside_the_checkpoint_or_else_in_it(self, run, tmp_path):
        assert trained_config(run).TEST.IMS_PER_BATCH == 5
        assert trained_config(run).MODEL.WEIGHTS == str(run / "model_final.pth")
        named = tmp_path / "named.yaml"
        (run / "config.yaml").rename(named)
        assert trained_config(run).TEST.IMS_PER_BATCH == tiny_cfg(tmp_path).TEST.IMS_PER_BATCH
        assert trained_config(run, named).TEST.IMS_PER_BATCH == 5
        assert trained_config(run, named, ["TEST.IMS_PER_BATCH", "7"]).TEST.IMS_PER_BATCH == 7

    def test_a_folder_that_was_moved_is_where_its_outputs_go(self, run, tmp_path):
        assert trained_config(run).OUTPUT_DIR == str(run)
        assert trained_config(run, options=["OUTPUT_DIR", "there"]).OUTPUT_DIR == "there"
        assert trained_config(run, run / "config.yaml").OUTPUT_DIR == tiny_cfg(tmp_path).OUTPUT_DIR

    def test_a_module_that_it_alone_names_is_not_imported(self, run, tmp_path):
        (tmp_path / "mine.py").write_text("raise SystemExit('imported')")
        path = run / "config.yaml"
        path.write_text(path.read_text() + f"IMPORTS: ['{tmp_path}/mine.py']\n")
        with pytest.raises(UserError, match="allow it with --imports"):
            trained_config(run)
        with pytest.raises(UserError, match="cannot be imported: SystemExit"):
            trained_config(run, imports=[f"{tmp_path}/mine.py"])

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("--model {run}", "add --eval-only"),
            ("--model {run} --eval-only MODEL.WEIGHTS a.pth", "MODEL.WEIGHTS names one, too"),
        ],
    )
    def test_a_training_and_a_second_checkpoint_are_refused(self, run, line, said):
        args = default_argument_parser().read(line.format(run=run).split())
        with pytest.raises(UserError, match=said):
            read_config(args)
