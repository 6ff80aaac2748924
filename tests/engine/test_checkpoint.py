"""Checkpoint files: none is lost, and none is loaded dishonestly."""

import ast
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from toy_training import IDENTITIES, ToyModel

from fastreid.modeling.weights import check_method, load_model_weights, named_method
from fastreid.utils.checkpoint import Checkpointer, load_checkpoint
from fastreid.utils.errors import UserError


def state_with(value: float) -> dict:
    return {"model": {"weight": torch.full((3,), value)}, "iteration": int(value), "meta": {"stage": 1}}


def test_what_is_saved_comes_back(tmp_path):
    saver = Checkpointer(tmp_path)
    state = state_with(1.0) | {"rng": [{"python": (3, (1, 2), None)}], "best_metric": 41.5}
    path = saver.save("model_0001.pth", state)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded.pop("model")["weight"], state.pop("model")["weight"])
    assert loaded == state
    assert (tmp_path / "last_checkpoint").read_text().strip() == "model_0001.pth"


def test_a_bare_state_dict_is_a_checkpoint_without_meta(tmp_path):
    torch.save(ToyModel().state_dict(), tmp_path / "plain.pth")
    loaded = load_checkpoint(tmp_path / "plain.pth")
    assert loaded["meta"] == {}
    assert loaded["model"].keys() == ToyModel().state_dict().keys()


def mapped_files() -> str:
    """The files that this process has mapped, as Linux lists them."""
    return Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_tensors_are_mapped_from_the_file_which_may_be_replaced_meanwhile(tmp_path):
    saver = Checkpointer(tmp_path)
    path = saver.save("model_0001.pth", state_with(1.0))
    loaded = load_checkpoint(path)
    assert str(path) in mapped_files()
    saver.save("model_0001.pth", state_with(2.0))
    assert loaded["model"]["weight"].tolist() == [1.0] * 3
    loaded["model"]["weight"] += 5  # a copy of one's own
    assert load_checkpoint(path)["model"]["weight"].tolist() == [2.0] * 3
    del loaded
    assert str(path) not in mapped_files()


def test_a_file_of_torchs_earlier_format_is_read_too(tmp_path):
    torch.save(state_with(1.0), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert load_checkpoint(tmp_path / "old.pth")["iteration"] == 1


class Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_no_file_is_loaded_in_the_careless_way():
    repo = Path(__file__).resolve().parents[2]
    calls = [
        (path, ast.unparse(call))
        for folder in ("fastreid", "projects", "tools")
        for path in (repo / folder).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("torch.load", "pickle.load", "np.load")
    ]
    assert len(calls) > 2
    safe = {"torch.load": "weights_only=True", "np.load": "", "pickle.load": "never"}
    unsafe = [(p, c) for p, c in calls if safe[c.split("(")[0]] not in c or "allow_pickle=True" in c]
    assert unsafe == []


def damage(kind: str, path: Path) -> None:
    torch.save(state_with(1.0), path)
    content = path.read_bytes()
    match kind:
        case "missing":
            path.unlink()
        case "folder":
            path.unlink()
            path.mkdir()
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "changed":
            (content := bytearray(content))[content.index(torch.ones(3).numpy().tobytes())] ^= 4
            path.write_bytes(content)
        case "foreign":
            path.write_bytes(b"\xff\xd8\xff\xe0 a picture")
        case "text":
            path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        case "pickle":
            path.write_bytes(pickle.dumps(Malicious()))
        case "objects":
            torch.save({"model": Malicious()}, path)
        case "tensor":
            torch.save(torch.zeros(3), path)
        case "no weights":
            torch.save({"epoch": 3}, path)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "not found"),
        ("folder", "is a folder"),
        ("empty", "empty"),
        ("truncated", "truncated or damaged"),
        ("changed", "truncated or damaged"),
        ("foreign", "not a"),
        ("text", "is a pointer of Git LFS, not the file itself; fetch it with git lfs pull"),
        ("pickle", "refused"),
        ("objects", "refused"),
        ("tensor", "holds a Tensor"),
        ("no weights", "no model weights"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named_in_one_line(kind, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model_0001.pth"
    damage(kind, path)
    with pytest.raises(UserError, match=said) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "changed", "foreign"])
def test_resuming_takes_the_good_one_before_a_bad_last_one(kind, tmp_path):
    saver = Checkpointer(tmp_path)
    for number in (1, 2, 3):
        path = saver.save(f"model_000{number}.pth", state_with(number))
        os.utime(path, (number, number))
    damage(kind, tmp_path / "model_0003.pth")
    path, state = saver.load_last()
    assert path.name == "model_0002.pth"
    assert state["iteration"] == 2


def test_a_folder_without_and_with_only_bad_checkpoints(tmp_path):
    assert Checkpointer(tmp_path).load_last() is None
    damage("truncated", tmp_path / "model_0001.pth")
    with pytest.raises(UserError, match="no checkpoint in .* can be read"):
        Checkpointer(tmp_path).load_last()


@pytest.mark.parametrize("place", ["model_0001.pth", "nowhere"])
def test_a_checkpoint_that_is_a_link_is_followed_as_far_as_it_leads(place, tmp_path, caplog_fastreid):
    saver = Checkpointer(tmp_path)
    saver.save("model_0001.pth", state_with(1))
    (tmp_path / "model_0002.pth").symlink_to(place)
    (tmp_path / "last_checkpoint").unlink()
    assert saver.load_last()[1]["iteration"] == 1
    assert ("model_0002.pth not found" in caplog_fastreid.text) == (place == "nowhere")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_writing_leaves_the_earlier_file(failing, tmp_path, monkeypatch):
    saver = Checkpointer(tmp_path)
    saver.save("model_latest.pth", state_with(1))

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(UserError, match=r"model_latest.pth.*No space left on device"):
            saver.save("model_latest.pth", state_with(2))
    assert saver.load_last()[1]["iteration"] == 1
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_latest.pth"]


def test_a_process_killed_while_writing_leaves_the_earlier_file(tmp_path):
    saver = Checkpointer(tmp_path)
    saver.save("model_latest.pth", state_with(1))
    program = f"""
        import os, signal, torch
        from fastreid.utils.checkpoint import Checkpointer
        def half(state, file):
            file.write(b"PK half of it")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        torch.save = half
        Checkpointer({str(tmp_path)!r}).save("model_latest.pth", {{}})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert saver.load_last()[1]["iteration"] == 1


def state_of(model: ToyModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_all_fitting_weights_are_loaded():
    source, model = ToyModel(), ToyModel()
    report = load_model_weights(model, source.state_dict(), "resume")
    assert len(report.loaded) == len(model.state_dict())
    assert (report.missing, report.unexpected, report.mismatched) == ([], [], [])
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())


def test_names_of_a_data_parallel_model_are_understood():
    source, model = ToyModel(), ToyModel()
    load_model_weights(model, {f"module.{n}": v for n, v in source.state_dict().items()}, "resume")
    assert torch.equal(model.heads.weight, source.heads.weight)


@pytest.mark.parametrize("purpose", ["train", "eval", "resume"])
def test_what_the_run_depends_on_must_be_there(purpose):
    model = ToyModel()
    before = state_of(model)
    lacking = {n: v for n, v in ToyModel().state_dict().items() if n != "backbone.0.weight"}
    with pytest.raises(UserError, match=r"file.pth lacks 1 of .*backbone.0.weight"):
        load_model_weights(model, lacking, purpose, source="file.pth")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_partial_weights_on_request_but_never_for_a_resume():
    source, model = ToyModel(), ToyModel()
    lacking = {n: v for n, v in source.state_dict().items() if n != "backbone.0.weight"}
    report = load_model_weights(model, lacking, "train", allow_partial=True)
    assert report.missing == ["backbone.0.weight"]
    assert torch.equal(model.backbone[0].bias, source.backbone[0].bias)
    with pytest.raises(UserError):
        load_model_weights(model, lacking, "resume", allow_partial=True)


def test_a_training_start_may_lack_what_the_model_says():
    model = ToyModel()
    model.may_start_without = ("backbone.1.",)
    lacking = {n: v for n, v in ToyModel().state_dict().items() if not n.startswith("backbone.1.")}
    load_model_weights(model, lacking, "train")
    with pytest.raises(UserError, match="backbone.1.weight"):
        load_model_weights(model, lacking, "eval")


def test_a_classifier_of_other_identities_is_dropped_for_evaluation_and_refused_for_a_resume():
    source, model = ToyModel(IDENTITIES + 2), ToyModel()
    head = model.heads.weight.clone()
    report = load_model_weights(model, source.state_dict(), "eval")
    assert report.mismatched == ["heads.weight", "heads.bias"]
    assert torch.equal(model.heads.weight, head)
    assert torch.equal(model.backbone[0].weight, source.backbone[0].weight)
    with pytest.raises(UserError, match=r"heads.weight \(7, 6\) instead of \(5, 6\)"):
        load_model_weights(model, source.state_dict(), "resume")


def test_other_shapes_elsewhere_are_refused_and_foreign_weights_too():
    wrong = ToyModel().state_dict() | {"backbone.0.weight": torch.zeros(2, 2)}
    with pytest.raises(UserError, match="another shape"):
        load_model_weights(ToyModel(), wrong, "eval")
    with pytest.raises(UserError, match="no parameter in common"):
        load_model_weights(ToyModel(), {"conv1": torch.zeros(1)}, "train", allow_partial=True)


def test_the_report_is_a_table_of_numbers_and_names():
    wrong = ToyModel(7).state_dict() | {"extra": torch.zeros(1)}
    table = load_model_weights(ToyModel(), wrong, "eval").table()
    rows = {line.split()[0]: line.split()[1] for line in table.splitlines()[2:]}
    assert rows == {"loaded": "7", "missing": "0", "unexpected": "1", "mismatched": "2"}


class Other(ToyModel):
    """Trains from a checkpoint of a `ToyModel`."""

    starts_from = ("ToyModel",)


@pytest.mark.parametrize(
    ("found", "wanted", "purpose", "fits"),
    [
        ("ToyModel", Other, "train", True),
        ("Other", ToyModel, "train", False),
        ("Other", Other, "train", True),
        ("ToyModel", Other, "eval", False),
        ("Other", ToyModel, "eval", False),
        ("ToyModel", Other, "resume", False),
        ("Other", Other, "eval", True),
        (None, Other, "eval", True),
    ],
)
def test_checkpoints_of_another_method_serve_only_a_training_that_starts_from_it(
    found, wanted, purpose, fits
):
    meta = {} if found is None else {"method": found}
    if fits:
        check_method(meta, wanted(), purpose, "file.pth")
    else:
        doing = {"train": "trains", "eval": "evaluates", "resume": "resumes"}[purpose]
        said = f"file.pth is a checkpoint of {found}, but the config {doing} {wanted.__name__}"
        with pytest.raises(UserError, match=said) as error:
            check_method(meta, wanted(), purpose, "file.pth")
        assert error.value.fix.startswith(
            f"use the config of {found}, or name a checkpoint of {wanted.__name__}"
        )


@pytest.mark.parametrize(
    ("meta", "method"),
    [
        ({"stage": 1}, "SDReIDStage1"),
        ({"stage": 2, "num_classes": 9}, "SDReIDStage2"),
        ({"stage": 1, "method": "Own"}, "Own"),
        ({"stage": 7}, None),
        ({}, None),
    ],
)
def test_a_file_from_before_methods_were_named_counts_by_its_stage(meta, method):
    assert named_method(meta) == method
