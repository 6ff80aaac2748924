"""The house keeps its rules: who imports whom, who may ask for a method, how long a room gets."""

import ast
import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "fastreid"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A room may import from those before it, and from its own group.
GROUPS = [
    {"structures", "utils"},
    {"config"},
    {"data", "modeling", "solver", "evaluation"},
    {"engine"},
    {"deploy", "visualization", "checks"},
    {"comparison"},
    {"cli"},
]
LEVEL = {room: level for level, group in enumerate(GROUPS) for room in group}
LONGEST_FUNCTION, LONGEST_FILE = 50, 300  # lines, those of a function without its docstring
QUESTIONS = re.compile(
    r"META_ARCHITECTURE\s*[=!]=|\.stage\b|META_ARCHITECTURE\s+(not )?in\b|isinstance\([^)]*SDReID"
)


def room_of(path: Path) -> str:
    """Return the room in which a module stands; the package's own file is none."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms that a module imports from anywhere in its text, also inside of functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by relative names"
            names.append(node.module)
    rooms = {name.split(".")[1] for name in names if name.startswith("fastreid.")}
    return rooms - {room_of(path)}


def test_no_module_imports_from_a_room_above_it():
    wrong = []
    for path in MODULES:
        room, rooms = room_of(path), imported_rooms(path)
        if room == "rendered":
            wrong += [(path, other) for other in rooms - {"data", "utils", "structures"}]
        elif room:
            hidden = rooms & {"rendered"} if room != "cli" else set()
            above = {other for other in rooms - {"rendered"} if LEVEL[other] > LEVEL[room]}
            wrong += [(path, other) for other in above | hidden]
    assert not wrong


def test_rooms_of_one_group_do_not_import_each_other_in_a_circle():
    imports: dict[str, set[str]] = {room: set() for room in LEVEL}
    for path in MODULES:
        if room_of(path) in imports:
            imports[room_of(path)] |= imported_rooms(path) & set(imports)
    done: set[str] = set()
    while len(done) < len(imports):
        free = {room for room, needed in imports.items() if room not in done and needed <= done}
        assert free, f"a circle among {sorted(set(imports) - done)}"
        done |= free


def test_projects_are_read_by_nobody():
    for path in (*MODULES, *(REPO / "tools").rglob("*.py")):
        assert "projects" not in {
            name.split(".")[0] for name in re.findall(r"^from (\S+)", path.read_text(), re.M)
        }


def test_nobody_outside_of_the_methods_asks_which_method_it_is():
    wrong = []
    for path in MODULES:
        if "meta_arch" not in path.parts:
            found = QUESTIONS.findall(text := path.read_text())
            found += ["SDMODEL"] * ("SDMODEL" in text)
            found += ["SDReID"] * ("SDReID" in text and path.name != "defaults.py")  # the default's name
            wrong += [(path, question) for question in found]
    assert not wrong


def test_a_file_fits_one_idea_and_a_function_one_screen():
    long = []
    for path in MODULES:
        text = path.read_text()
        long += [path] * (text.count("\n") > LONGEST_FILE)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                documented = (ast.get_docstring(node, clean=False) or "").count("\n")
                if node.end_lineno - node.lineno - documented >= LONGEST_FUNCTION:
                    long.append((path, node.name))
    assert not long


def test_docstrings_say_what_a_thing_does_in_the_imperative():
    wrong = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                first = (ast.get_docstring(node) or "").partition("\n")[0]
                if re.match(r"(What|How|Whether|Which|Why|Where|When|Who)\b", first):
                    wrong.append((path, first))
    assert not wrong


def test_stage_1_imports_no_diffusers():
    import subprocess
    import sys

    code = (
        "import sys; from fastreid.config import get_cfg;"
        "from fastreid.modeling import build_model, fit_config;"
        "cfg = get_cfg(); cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.FEAT_DIM = 'tiny', 192;"
        "build_model(fit_config(cfg, 3, ('a', 'b'))); assert 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO, timeout=120)
