"""Registries own names: what they refuse, what they answer, and when they import."""

import sys
from itertools import count

import pytest

from fastreid.utils.errors import UserError
from fastreid.utils.registry import Registry, requiring

pytestmark = pytest.mark.usefixtures("own_names")
numbers = count()


def new_registry(contract=lambda entry: "") -> Registry:
    """A registry of its own key: there is one for each key of the configuration."""
    return Registry("backbone", f"TOY{next(numbers)}.NAME", contract)


@pytest.fixture
def registry() -> Registry:
    registry = new_registry()

    @registry.register()
    def build_vit(cfg):
        return "vit"

    registry.register("resnet", dict)
    return registry


def test_registered_names_give_what_was_registered(registry):
    assert registry.get("build_vit")(None) == "vit"
    assert registry.get("resnet") is dict
    assert "resnet" in registry
    assert sorted(registry) == ["build_vit", "resnet"]


def test_an_unknown_name_lists_the_known_and_the_nearest_and_mentions_imports(registry):
    said = rf"unknown backbone 'resnett' in {registry.key}. Did you mean 'resnet'\? Known: build_vit, resnet"
    for look_up in (registry.get, registry.check):
        with pytest.raises(UserError, match=said) as error:
            look_up("resnett")
        assert "IMPORTS" in error.value.fix
    registry.check("resnet")


def test_a_name_is_given_once_and_so_is_a_key(registry):
    with pytest.raises(
        UserError, match="backbone 'resnet' is registered twice; give one of them another name"
    ):
        registry.register("resnet", list)
    assert registry.get("resnet") is dict
    with pytest.raises(ValueError, match=f"registry for {registry.key} already"):
        Registry("other", registry.key)


def test_an_entry_that_breaks_the_contract_is_refused_with_what_it_lacks():
    registry = new_registry(requiring("width", "build", see="here.py"))

    class Narrow:
        build = None

    with pytest.raises(
        UserError, match=r"backbone 'Narrow' cannot be registered: it has no width \(see here.py\)"
    ):
        registry.register()(Narrow)
    assert "Narrow" not in registry
    Narrow.width = 3
    registry.register()(Narrow)
    assert registry.get("Narrow") is Narrow


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that nobody has imported, with the class Entry."""
    name = f"late_entries_{next(numbers)}"
    (tmp_path / f"{name}.py").write_text("class Entry:\n    width = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_lazy_entry_is_imported_when_it_is_first_asked_for(module):
    registry = new_registry(requiring("width", see="here.py"))
    registry.register_later("late", module, "Entry")
    registry.check("late")
    assert list(registry) == ["late"]
    assert module not in sys.modules
    assert registry.get("late") is sys.modules[module].Entry
    assert registry.get("late") is registry.get("late")


def test_a_lazy_entry_keeps_the_contract_too(module):
    registry = new_registry(requiring("depth", see="here.py"))
    registry.register_later("late", module, "Entry")
    with pytest.raises(UserError, match="'late' cannot be registered: it has no depth"):
        registry.get("late")


def test_the_keys_of_entries_are_gathered(registry):
    class WithKeys:
        KEYS = {"A": 1}

    registry.register()(WithKeys)
    assert registry.keys_of_entries() == [{"A": 1}]
