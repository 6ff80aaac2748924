"""A trained model needs its checkpoint and nothing of the data that it was trained on."""

import pytest
import torch
from worlds.options import tiny_cfg

from fastreid.engine import load_trained_model
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
