"""IMPORTS: modules and files of the user's own, which bring names and keys."""

import sys
from itertools import count

import pytest

from fastreid.config import check_config, get_cfg
from fastreid.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("own_names")
numbers = count()

SOURCE = """
from fastreid.config import Key
from fastreid.solver import SCHEDULE_REGISTRY

def {name}(cfg, epochs):
    return lambda counted, base: base * cfg.SOLVER.{key}

{name}.spans_run, {name}.linear_warmup = False, False
{name}.KEYS = {{"SOLVER": {{"{key}": Key(0.5, "a factor")}}}}
SCHEDULE_REGISTRY.register("{name}", {name})
"""


@pytest.fixture
def schedule(write):
    """The name of a schedule with a key of its own in capitals, and the file that registers it."""
    name = f"own_schedule_{next(numbers)}"
    return name, write(f"nets/{name}.py", SOURCE.format(name=name, key=name.upper()))


def test_a_file_is_found_beside_the_yaml_and_absolute_in_the_result(schedule, write):
    name, file = schedule
    config = f"IMPORTS: [nets/{name}.py]\nSOLVER: {{SCHED: {name}, {name.upper()}: 0.25}}\n"
    cfg = get_cfg()
    cfg.merge_from_file(write("a.yml", config))
    check_config(cfg)
    assert cfg.IMPORTS == [str(file)]
    assert cfg.SOLVER[name.upper()] == 0.25
    again = get_cfg()
    again.merge_from_file(write("elsewhere/dump.yml", cfg.dump()))
    assert again.IMPORTS == [str(file)]


def test_on_the_command_line_a_file_is_relative_to_the_current_folder(schedule, monkeypatch):
    name, file = schedule
    monkeypatch.chdir(file.parent)
    cfg = get_cfg()
    cfg.merge_from_list([f"SOLVER.{name.upper()}", "0.25", "IMPORTS", f"['{name}.py']", "SOLVER.SCHED", name])
    check_config(cfg)
    assert (cfg.IMPORTS, cfg.SOLVER[name.upper()]) == ([str(file)], 0.25)


def test_imports_of_bases_files_and_the_command_line_add_up(write):
    files = [write(f"{name}.py", "") for name in ("first", "second", "third")]
    write("base.yml", "IMPORTS: [first.py]\n")
    cfg = get_cfg()
    cfg.merge_from_file(write("a.yml", "_BASE_: base.yml\nIMPORTS: [second.py]\n"))
    cfg.merge_from_list(["IMPORTS", f"['{files[0]}', '{files[2]}']"])
    assert cfg.IMPORTS == list(map(str, files))


def test_a_module_is_imported_also_from_the_current_folder(schedule, monkeypatch):
    name, file = schedule
    monkeypatch.chdir(file.parent.parent)
    path = list(sys.path)
    cfg = get_cfg()
    cfg.merge_values({"IMPORTS": [f"nets.{name}"], "SOLVER": {"SCHED": name}}, "test")
    check_config(cfg)
    assert cfg.IMPORTS == [f"nets.{name}"]
    assert sys.path == path


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("no_such_package.net", "no_such_package"),
        ("nets/none.py", "No such file"),
        ("nets/broken.py", "ZeroDivisionError: division by zero"),
        ("nets/syntax.py", "SyntaxError"),
        ("nets/leaves.py", "SystemExit: 3"),
    ],
)
def test_what_cannot_be_imported_is_one_line_that_names_it(module, said, write):
    write("nets/broken.py", "1 / 0\n")
    write("nets/syntax.py", "def (\n")
    write("nets/leaves.py", "raise SystemExit(3)\n")
    with pytest.raises(
        UserError, match=rf"IMPORTS \S*{module} .*a.yml.*cannot be imported: .*{said}"
    ) as error:
        get_cfg().merge_from_file(write("a.yml", f"IMPORTS: [{module}]\n"))
    assert "\n" not in str(error.value)
    assert ".py file" in error.value.fix


@pytest.mark.parametrize("imports", ["my_net", 3, [3], {"a": 1}])
def test_imports_are_a_list_of_names(imports):
    with pytest.raises(UserError, match="'IMPORTS.*expected "):
        get_cfg().merge_values({"IMPORTS": imports}, "test")


class TestStoredConfigurations:
    """They come along with a checkpoint: nobody has named the modules that they name."""

    def test_where_too_few_are_allowed_the_others_are_named(self, schedule, write):
        name, _ = schedule
        stored = {"IMPORTS": ["/gone/net.py"], "SOLVER": {"SCHED": name, name.upper(): 0.25}}
        with pytest.raises(
            UserError, match=r"unknown config key .*; model.pth names /gone/net.py, too: allow"
        ):
            get_cfg().merge_stored(stored, "model.pth", imports=[str(write("other.py", ""))])

    def test_their_modules_are_not_imported_and_the_way_to_allow_them_is_said(self, write, tmp_path):
        file = write("evil.py", f"open({str(tmp_path / 'executed')!r}, 'w')\n")
        with pytest.raises(UserError, match=f"model.pth needs {file} imported") as error:
            get_cfg().merge_stored({"IMPORTS": [str(file)]}, "model.pth")
        assert f"--imports {file}" in error.value.fix
        assert not (tmp_path / "executed").exists()

    def test_what_the_user_allows_is_imported_in_their_place(self, schedule):
        name, file = schedule
        cfg = get_cfg()
        stored = {"IMPORTS": ["/gone/net.py"], "SOLVER": {"SCHED": name, name.upper(): 0.25}}
        cfg.merge_stored(stored, "model.pth", imports=[str(file)])
        check_config(cfg)
        assert (cfg.IMPORTS, cfg.SOLVER[name.upper()]) == ([str(file)], 0.25)
        assert stored["IMPORTS"] == ["/gone/net.py"]

    def test_what_is_imported_already_needs_no_leave(self, schedule):
        name, file = schedule
        get_cfg().merge_values({"IMPORTS": [str(file)]}, "test")
        cfg = get_cfg()
        cfg.merge_stored({"IMPORTS": [str(file)], "SOLVER": {"SCHED": name}}, "model.pth")
        assert name == cfg.SOLVER.SCHED

    def test_the_rest_is_merged_as_from_a_file(self):
        cfg = get_cfg()
        cfg.merge_stored({"SOLVER": {"BASE_LR": 0.5}, "IMPORTS": []}, "model.pth")
        assert cfg.SOLVER.BASE_LR == 0.5
        with pytest.raises(UserError, match=r"unknown config key 'SOLVER.X' \(model.pth\)"):
            cfg.merge_stored({"SOLVER": {"X": 1}}, "model.pth")
        with pytest.raises(UserError, match="'IMPORTS' .model.pth.: expected list"):
            cfg.merge_stored({"IMPORTS": 3}, "model.pth")
