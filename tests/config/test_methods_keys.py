"""The keys of a method are there as long as it is named."""

import pytest

from fastreid.config import CfgNode, Key, get_cfg
from fastreid.config.files import flat_keys
from fastreid.modeling import META_ARCH_REGISTRY, MetaArch
from fastreid.modeling.losses import LOSS_REGISTRY
from fastreid.solver import SCHEDULE_REGISTRY
from fastreid.utils.errors import UserError


class Plain(MetaArch):
    """A method that shares the view loss's weight with SD-ReID and has a key of its own."""

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        shared = get_cfg().declared["MODEL.LOSSES.CE.VIEW_LAMBDA"]
        cfg.declare(
            {"MODEL": {"PLAIN": {"DEPTH": Key(3, "of it")}, "LOSSES": {"CE": {"VIEW_LAMBDA": shared}}}}
        )

    def encode(self, batch): ...

    def losses(self, encoded, batch): ...


@pytest.fixture(autouse=True)
def plain(own_names):
    META_ARCH_REGISTRY.register("Plain", Plain)


def test_keys_of_another_method_are_unknown():
    cfg = get_cfg()
    said = "'MODEL.PLAIN.DEPTH' .* is one of Plain, and MODEL.META_ARCHITECTURE is SDReIDStage1"
    with pytest.raises(UserError, match=said):
        cfg.merge_from_list(["MODEL.PLAIN.DEPTH", "4"])
    cfg.merge_from_list(["MODEL.META_ARCHITECTURE", "Plain"])
    assert cfg.MODEL.PLAIN.DEPTH == 3
    said = "'MODEL.SDMODEL.VIEW_NUM' .* is one of SDReIDStage1, SDReIDStage2, SDReIDStage2AsReleased, and"
    with pytest.raises(UserError, match=said):
        cfg.merge_from_list(["MODEL.SDMODEL.VIEW_NUM", "2"])
    assert not {"SDMODEL"} & (set(cfg.MODEL) | set(cfg.TEST))


def test_a_switch_keeps_the_values_of_keys_that_both_methods_have_and_drops_the_others():
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.LOSSES.CE.VIEW_LAMBDA", "0.7", "MODEL.SDMODEL.MOMENTUM", "0.5"])
    cfg.merge_from_list(["SOLVER.BASE_LR", "0.3", "MODEL.META_ARCHITECTURE", "Plain"])
    assert (cfg.MODEL.LOSSES.CE.VIEW_LAMBDA, cfg.SOLVER.BASE_LR) == (0.7, 0.3)
    cfg.merge_from_list(["MODEL.META_ARCHITECTURE", "SDReIDStage2"])
    assert (cfg.MODEL.LOSSES.CE.VIEW_LAMBDA, cfg.MODEL.SDMODEL.MOMENTUM) == (0.7, 0.8)
    assert set(cfg.declared) == set(flat_keys(cfg))
    assert "PLAIN" not in cfg.MODEL


def test_both_stages_have_the_same_keys():
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.SDMODEL.MOMENTUM", "0.5", "MODEL.META_ARCHITECTURE", "SDReIDStage2"])
    assert cfg.MODEL.SDMODEL.MOMENTUM == 0.5


def test_the_method_of_a_file_or_command_line_counts_wherever_it_stands(write):
    cfg = get_cfg()
    cfg.merge_from_file(write("a.yml", "MODEL: {PLAIN: {DEPTH: 5}, META_ARCHITECTURE: Plain}\n"))
    assert cfg.MODEL.PLAIN.DEPTH == 5
    cfg.merge_from_list(["MODEL.SDMODEL.MOMENTUM", "0.5", "MODEL.META_ARCHITECTURE", "SDReIDStage1"])
    assert cfg.MODEL.SDMODEL.MOMENTUM == 0.5


def test_a_file_leaves_behind_the_keys_of_its_bases_method_but_not_its_own(write):
    base = "MODEL: {META_ARCHITECTURE: SDReIDStage1, SDMODEL: {MOMENTUM: 0.5}}\nSOLVER: {BASE_LR: 0.3}\n"
    write("base.yml", base)
    middle = "_BASE_: base.yml\nMODEL: {META_ARCHITECTURE: Plain, PLAIN: {DEPTH: 5}}\n"
    write("middle.yml", middle)
    cfg = get_cfg()
    cfg.merge_from_file(write("top.yml", "_BASE_: middle.yml\nSOLVER: {GAMMA: 0.2}\n"))
    assert (cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.PLAIN.DEPTH) == ("Plain", 5)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA) == (0.3, 0.2)
    assert "SDMODEL" not in cfg.MODEL
    stage2 = "_BASE_: base.yml\nMODEL: {META_ARCHITECTURE: SDReIDStage2}\n"
    cfg.merge_from_file(write("stage2.yml", stage2))
    assert cfg.MODEL.SDMODEL.MOMENTUM == 0.5
    with pytest.raises(UserError, match=r"'MODEL.SDMODEL.MOMENTUM' .*own.yml\) is one of SDReIDStage1"):
        get_cfg().merge_from_file(write("own.yml", middle.replace("}}", "}, SDMODEL: {MOMENTUM: 0.5}}")))


def test_copies_know_their_method():
    cfg = get_cfg()
    copy = cfg.clone()
    copy.merge_from_list(["MODEL.META_ARCHITECTURE", "Plain"])
    assert "SDMODEL" in cfg.MODEL
    assert "MODEL.SDMODEL.MOMENTUM" in cfg.declared
    cfg.merge_from_list(["MODEL.SDMODEL.MOMENTUM", "0.5"])


def test_a_registered_part_brings_its_keys():
    loss = type("Toy", (), {"logged_as": "loss_toy", "compares_pairs": False, "needs_classifier": False})
    loss.from_config = classmethod(lambda cls, cfg: {})
    loss.KEYS = {"MODEL": {"LOSSES": {"TOY": {"SCALE": Key(1.0, "weight of the loss")}}}}
    LOSS_REGISTRY.register("Toy", loss)
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.LOSSES.TOY.SCALE", "2", "MODEL.LOSSES.NAME", "['Toy']"])
    assert cfg.MODEL.LOSSES.TOY.SCALE == 2.0


def test_one_key_cannot_have_two_meanings():
    def flat(cfg, epochs):
        return lambda counted, base: base

    flat.spans_run, flat.linear_warmup = False, False
    flat.KEYS = {"SOLVER": {"GAMMA": Key(7, "of something else")}}
    SCHEDULE_REGISTRY.register("flat", flat)
    with pytest.raises(UserError, match="SOLVER.GAMMA is declared twice"):
        get_cfg()


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (
            lambda cfg: cfg.declare({"MODEL": {"MINE": 3}}),
            "MODEL.MINE is declared as 3; declare it with a Key",
        ),
        (lambda cfg: setattr(cfg.MODEL, "MINE", 3), "add_config of Own sets MODEL.MINE; declare"),
    ],
)
def test_a_key_without_a_meaning_is_refused_by_its_name(add, said):
    own = type("Own", (Plain,), {"add_config": classmethod(lambda cls, cfg: add(cfg))})
    META_ARCH_REGISTRY.register("Own", own)
    with pytest.raises(UserError, match=said):
        get_cfg().use_method("Own")
