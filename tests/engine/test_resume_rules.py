"""Which keys a resumed run may change: every key says it of itself."""

import logging

import pytest

from fastreid.config import CfgNode, Changes, Key, get_cfg
from fastreid.engine.resume import (
    TRAINING_RULES,
    check_resumed_config,
    check_resumed_names,
    check_resumed_rules,
)
from fastreid.modeling import META_ARCH_REGISTRY, MetaArch
from fastreid.solver import SCHEDULE_REGISTRY
from fastreid.structures import DataNames
from fastreid.utils.errors import UserError


def resumed(changes: list[str], saved: CfgNode | None = None, start: list[str] = ()) -> str:
    """The error of a resume with `changes`, empty if it may go on."""
    cfg = get_cfg()
    cfg.merge_from_list(list(start))
    before = (saved or cfg).dump()
    cfg.merge_from_list(changes)
    try:
        check_resumed_config(cfg, before, "model_0001.pth")
    except UserError as error:
        return str(error)
    return ""


def other(key: Key) -> object:
    """Another value of the key's type."""
    if isinstance(key.default, list):
        return [*key.default, *(key.default[:1] or [{str: "x", int: 1}[key.element]])]
    return not key.default if isinstance(key.default, bool) else key.default * 2 or type(key.default)(1)


@pytest.mark.parametrize("name", sorted(get_cfg().declared))
def test_what_changes_the_training_is_refused_and_the_rest_is_logged(name, caplog_fastreid):
    cfg, saved = get_cfg(), get_cfg()
    key = cfg.declared[name]
    group, _, leaf = name.rpartition(".")
    node = cfg
    for part in filter(None, group.split(".")):
        node = node[part]
    node[leaf] = other(key)
    text = ""
    try:
        check_resumed_config(cfg, saved.dump(), "model_0001.pth")
    except UserError as error:
        text = str(error)
    assert f"Resuming with another {name}: " in caplog_fastreid.text
    assert bool(text) == bool(key.changes & Changes.TRAINING)
    if text:
        assert f"({name} {other(key)!r}, was {getattr_by_name(saved, name)!r})" in text
        assert "\n" not in text


def getattr_by_name(cfg: CfgNode, name: str) -> object:
    for part in name.split("."):
        cfg = cfg[part]
    return cfg


def test_all_refused_keys_are_listed_and_only_they():
    said = resumed(["SOLVER.BASE_LR", "0.5", "SOLVER.LOG_PERIOD", "2", "MODEL.SDMODEL.MOMENTUM", "0.1"])
    assert "the config differs from that of model_0001.pth in what is trained" in said
    assert "SOLVER.BASE_LR 0.5, was 0.008" in said
    assert "MODEL.SDMODEL.MOMENTUM 0.1, was 0.8" in said
    assert "LOG_PERIOD" not in said
    assert "restore the values, or start a new run" in said


def test_a_run_may_be_lengthened_unless_its_schedule_spans_it():
    assert "SOLVER.MAX_EPOCH 200, was 120" in resumed(["SOLVER.MAX_EPOCH", "200"])
    assert not resumed(["SOLVER.MAX_EPOCH", "200"], start=["SOLVER.SCHED", "MultiStepLR"])


@pytest.mark.parametrize("spans", [True, False])
def test_a_schedule_of_ones_own_says_whether_it_spans_the_run(own_names, spans):
    def toy(cfg, epochs):
        return lambda counted, base: base

    toy.spans_run, toy.linear_warmup = spans, False
    SCHEDULE_REGISTRY.register("toy", toy)
    assert bool(resumed(["SOLVER.MAX_EPOCH", "200"], start=["SOLVER.SCHED", "toy"])) == spans


def test_keys_that_are_gone_or_new_are_no_difference(own_names):
    class Plain(MetaArch):
        @classmethod
        def add_config(cls, cfg):
            cfg.declare({"MODEL": {"PLAIN": {"DEPTH": Key(3, "of it")}}})

        def encode(self, batch): ...

        def losses(self, encoded, batch): ...

    META_ARCH_REGISTRY.register("Plain", Plain)
    said = resumed(["MODEL.META_ARCHITECTURE", "Plain"])
    assert "(MODEL.META_ARCHITECTURE 'Plain', was 'SDReIDStage1')" in said
    assert "SDMODEL" not in said
    assert "PLAIN" not in said


def test_nothing_is_logged_where_nothing_differs(caplog):
    caplog.set_level(logging.INFO)
    assert not resumed([])
    assert not caplog.records


def test_a_run_that_began_by_other_rules_does_not_go_on():
    check_resumed_rules(TRAINING_RULES, "model.pth")
    for other in (TRAINING_RULES - 1, TRAINING_RULES + 1):
        with pytest.raises(UserError, match="model.pth was written by another version"):
            check_resumed_rules(other, "model.pth")


def test_names_whose_zeros_an_earlier_version_left_out_are_the_same():
    names = DataNames(("007", "CARGO/0010", "000"), {0: "09"}, ("drone",))
    earlier = DataNames(("7", "CARGO/10", "0"), {0: "9"}, ("drone",))
    check_resumed_names(names, earlier.to_dict(), "model.pth")
    with pytest.raises(UserError, match="other identities and cameras than"):
        check_resumed_names(names, DataNames(("70",), {0: "90"}, ("drone",)).to_dict(), "model.pth")


def test_the_data_has_the_names_that_it_had():
    names = DataNames(("1", "2"), {0: "a", 4: "b"}, ("drone", "ground"))
    for saved in (names.to_dict(), {}, None):
        check_resumed_names(names, saved, "model.pth")
    for changed, said in (
        ({"views": ("ground", "kite")}, "views"),
        ({"identities": ("2", "1"), "cameras": {0: "a"}}, "identities and cameras"),
    ):
        saved = names._replace(**changed).to_dict()
        with pytest.raises(UserError, match=f"the training data has other {said} than that of model.pth"):
            check_resumed_names(names, saved, "model.pth")
