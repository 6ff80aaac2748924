"""Damaged checkpoints: a resumed run trains on, a model is evaluated, or there is one error."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import changes, fuzz, missing, places, refused, replaced
from hypothesis import given
from hypothesis import strategies as st
from worlds.options import tiny_cfg

from fastreid.engine import DefaultTrainer
from fastreid.engine.resume import PARTS, restored
from fastreid.engine.trained_model import fit_to_checkpoint, trained_config
from fastreid.modeling.weights import check_method, load_model_weights
from fastreid.solver.optimizer import load_optimizer_state
from fastreid.utils.checkpoint import load_checkpoint
from fastreid.utils.errors import UserError

TENSORS = {
    "another shape": lambda value: torch.zeros(2, 3, 5),
    "one number": lambda value: torch.zeros(()),
    "integers": lambda value: value.int(),
    "booleans": lambda value: value.bool(),
    "complex": lambda value: value.to(torch.complex64),
    "sparse": lambda value: value.float().to_sparse(),
    "no numbers": lambda value: value.to("meta"),
    "NaN": lambda value: torch.full_like(value.float(), float("nan")),
    "a list": lambda value: [1.0],
}


class Run:
    """A run of one iteration that can be resumed again and again."""

    def __init__(self, root: Path) -> None:
        self.cfg = tiny_cfg(root, "MODEL.HEADS.NUM_CLASSES", "6")
        self.cfg.freeze()
        self.trainer = DefaultTrainer(self.cfg)
        self.trainer.model.train()
        self.trainer.start()
        self.step()
        self.trainer.iteration = 1
        self.state = copy.deepcopy(self.trainer.state_dict())
        self.file = root / "model_latest.pth"

    def step(self) -> None:
        self.trainer.run_step()
        self.trainer.confirm_steps()

    def save(self, state: Any) -> None:
        torch.save(state, self.file)

    def resume(self) -> None:
        """Go on from what was saved, for a step."""
        self.trainer.load_state_dict(load_checkpoint(self.file), str(self.file))
        self.step()
        self.trainer.state_dict()

    def evaluate(self) -> None:
        """Take the model from what was saved, as an evaluation does."""
        trained_config(self.file)
        checkpoint = load_checkpoint(self.file)
        fit_to_checkpoint(self.cfg, checkpoint)
        check_method(checkpoint["meta"], self.trainer.model, "eval", str(self.file))
        load_model_weights(self.trainer.model, checkpoint["model"], "eval", source=str(self.file))


@pytest.fixture(scope="module")
def run(_noise, tmp_path_factory) -> Run:
    return Run(shutil.copytree(_noise, tmp_path_factory.mktemp("run"), dirs_exist_ok=True))


def inside(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value


def test_a_sound_checkpoint_is_resumed_and_evaluated(run):
    run.save(run.state)
    run.resume()
    run.evaluate()


@fuzz
@given(data=st.data())
def test_a_checkpoint_with_another_value_anywhere(run, data):
    part = data.draw(st.sampled_from(sorted(run.state)))
    path = data.draw(st.sampled_from([p for p in places(run.state) if p[0] == part]))
    run.save(replaced(run.state, path, data.draw(changes)))
    refused(run.resume)
    refused(run.evaluate)


@fuzz
@given(data=st.data(), kind=st.sampled_from(sorted(TENSORS)))
def test_a_checkpoint_with_another_tensor_anywhere(run, data, kind):
    tensors = [path for path in places(run.state) if isinstance(inside(run.state, path), torch.Tensor)]
    run.save(replaced(run.state, data.draw(st.sampled_from(tensors)), TENSORS[kind]))
    refused(run.resume)
    refused(run.evaluate)


@pytest.mark.parametrize("part", [*PARTS, "meta"])
def test_a_part_that_is_missing_is_named(run, part):
    said = r"lacks .*meta.config" if part == "meta" else f"model_latest.pth lacks {part}: not a checkpoint"
    run.save(replaced(run.state, (part,), missing))
    with pytest.raises(UserError, match=said):
        run.resume()


@pytest.mark.parametrize("kind", sorted(TENSORS.keys() - {"one number", "a list"}))
def test_weights_that_are_not_what_the_model_has_are_refused(run, kind):
    run.save(replaced(run.state, ("model", "backbone.cls_token"), TENSORS[kind]))
    for use in (run.resume, run.evaluate):
        with pytest.raises(UserError, match=r"backbone.cls_token"):
            use()


@pytest.mark.parametrize("kind", sorted(TENSORS.keys() - {"no numbers"}))
def test_what_the_optimizer_remembers_is_of_its_parameters(run, kind):
    path = ("optimizer", "state", 0, "momentum_buffer")
    assert inside(run.state, path).is_floating_point()
    run.save(replaced(run.state, path, TENSORS[kind]))
    with pytest.raises(UserError, match="cannot be resumed, its state does not fit .*optimizer"):
        run.resume()


ADAM = {
    "a count that is text": (("state", 0, "step"), lambda _: "one", "step of the optimizer is str"),
    "a count below zero": (
        ("state", 0, "step"),
        lambda value: -value - 1,
        "step .* is no count",
    ),
    "a count of each number": (("state", 0, "step"), lambda _: torch.ones(3), "is no count of steps"),
    "no average": (("state", 0, "exp_avg"), missing, "exp_avg of the optimizer is missing for a parameter"),
    "an average of none": (("state", 1, "exp_avg_sq"), lambda _: torch.ones(()), r"is \(\) for a parameter"),
    "rates that are text": (("param_groups", 0, "betas"), lambda _: (0.9, "x"), "betas of the optimizer is"),
    "NaN as a rate": (
        ("param_groups", 0, "betas"),
        lambda _: (float("nan"), 0.9),
        "betas of the optimizer is",
    ),
    "no group": (("param_groups",), lambda _: [], "zip"),
    "a group too many": (("param_groups",), lambda groups: [*groups, groups[0]], "has a parameter twice"),
}


@pytest.mark.parametrize("kind", ADAM)
def test_what_adam_remembers_is_checked(kind):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path, change, said = ADAM[kind]
    load_optimizer_state(optimizer, copy.deepcopy(optimizer.state_dict()))
    with pytest.raises(UserError, match=said), restored("model_latest.pth"):
        load_optimizer_state(optimizer, replaced(optimizer.state_dict(), path, change))


META = {
    "names": (["a"], "meta.names is list, expected lists of names"),
    "num_classes": ("six", "meta.num_classes is str, expected a whole number from 0"),
    "method": (7, "meta.method is 7, expected text"),
    "config": ("MODEL: &a [*a]", "stored config is not valid YAML: line 1: a value that holds itself"),
}


@pytest.mark.parametrize(("name", "value", "said"), [(n, *v) for n, v in META.items()], ids=META)
def test_what_a_checkpoint_says_of_itself_is_checked(run, name, value, said):
    run.save(replaced(run.state, ("meta", name), lambda _: value))
    with pytest.raises(UserError, match=said):
        run.evaluate()
