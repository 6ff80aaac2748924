"""A run's own files, empty, cut, foreign or gone: a line for each, and the run goes on from what is good."""

import json
import os
from pathlib import Path

import pytest
import torch

from fastreid.engine.hooks.checkpointing import BEST, FINAL, LATEST
from fastreid.utils.checkpoint import load_checkpoint


@pytest.fixture
def whole(toy_cfg, toy_trainer) -> dict[str, torch.Tensor]:
    """The weights of a finished run of three epochs, the second of which is the best."""
    toy_trainer.means = [10.0, 30.0, 20.0]
    train(toy_trainer, toy_cfg)
    return load_checkpoint(Path(toy_cfg.OUTPUT_DIR) / FINAL)["model"]


@pytest.fixture
def folder(toy_cfg, whole) -> Path:
    """OUTPUT_DIR of the same run, stopped after the second epoch."""
    folder = Path(toy_cfg.OUTPUT_DIR)
    (folder / FINAL).unlink()
    (folder / "last_checkpoint").write_text("model_0002.pth\n")
    return folder


def train(kind, cfg, resume=False):
    trainer = kind(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    return trainer


def check_whole(folder, whole) -> None:
    final = load_checkpoint(folder / FINAL)["model"]
    assert all(torch.equal(final[name], value) for name, value in whole.items())
    means = [(e["epoch"], e["mean"]) for e in json.loads((folder / "evaluations.json").read_text())]
    assert means == [(1, 10.0), (2, 30.0), (3, 20.0)]
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    assert {9, 10, 11, 12} <= {line["iteration"] for line in lines}
    assert (folder / "last_checkpoint").read_text() == f"{FINAL}\n"
    assert load_checkpoint(folder / BEST)["epoch"] == 2


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("evaluations.json", c) for c in (b"", b'[{"epoch": 1', b"{}x", b"[1]", b"[null, {}]")),
        *(("evaluations.json", c) for c in (b"\xff\xfe\0", b'[{"epoch": 1}]', b"[" * 100_000)),
        *(("metrics.json", c) for c in (b"\xff\n\xfe\n", b"[1]\n{}\n", b"[" * 100_000 + b"\n\n")),
        *(("last_checkpoint", c) for c in (b"", b"\xff\n", b"../run/model_0001.pth", b"model_\0.pth", b"x")),
    ],
)
def test_a_file_that_cannot_be_read(name, content, folder, whole, toy_cfg, toy_trainer, caplog_fastreid):
    (folder / name).write_bytes(content)
    os.utime(folder / "model_0002.pth")
    caplog_fastreid.clear()
    # The checkpoint of an epoch knows the evaluations before it; its own is made up.
    toy_trainer.means = [30.0, 20.0] if name == "evaluations.json" else [20.0]
    train(toy_trainer, toy_cfg, resume=True)
    assert toy_trainer.means == []
    (said,) = warnings(caplog_fastreid)
    assert name in said
    assert "\n" not in said
    if name != "last_checkpoint":
        assert (folder / f"{name}.aside.1").read_bytes() == content
    check_whole(folder, whole)


def dangle(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere" / path.name)


@pytest.mark.parametrize("make", [dangle, Path.mkdir, os.mkfifo])
def test_what_has_a_files_name_and_is_none_makes_way(
    make, folder, whole, toy_cfg, toy_trainer, caplog_fastreid
):
    names = ["evaluations.json", "metrics.json", "results.json", "query_scores.npz", "last_checkpoint"]
    names += ["config.yaml", "log.txt", ".run", ".lock", LATEST]
    for name in names:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
    os.utime(folder / "model_0002.pth")
    caplog_fastreid.clear()
    toy_trainer.means = [30.0, 20.0]
    train(toy_trainer, toy_cfg, resume=True)
    for name in names:
        assert [said for said in warnings(caplog_fastreid) if f"/{name} is not a file" in said]
    check_whole(folder, whole)
    caplog_fastreid.clear()
    train(toy_trainer, toy_cfg, resume=True)
    assert warnings(caplog_fastreid) == []


def test_a_damaged_end_is_written_again_from_the_best_of_the_same_epoch(
    toy_cfg, toy_trainer, caplog_fastreid
):
    toy_trainer.means = [10.0, 20.0, 30.0]
    trainer = train(toy_trainer, toy_cfg)
    final = Path(toy_cfg.OUTPUT_DIR) / FINAL
    final.write_bytes(final.read_bytes()[:5000])
    caplog_fastreid.clear()
    train(toy_trainer, toy_cfg, resume=True)
    assert [FINAL in said for said in warnings(caplog_fastreid)] == [True, True]
    assert "done already" not in caplog_fastreid.text
    again = load_checkpoint(final, whole=True)
    assert again["epoch"] == 3
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(again["model"][name], value)
    caplog_fastreid.clear()
    train(toy_trainer, toy_cfg, resume=True)
    assert "done already" in caplog_fastreid.text


@pytest.mark.parametrize("finished", [False, True])
def test_a_best_model_that_cannot_be_read_is_chosen_anew(
    finished, toy_cfg, toy_trainer, request, caplog_fastreid
):
    request.getfixturevalue("whole" if finished else "folder")
    best = Path(toy_cfg.OUTPUT_DIR) / BEST
    best.write_bytes(best.read_bytes()[:5000])
    caplog_fastreid.clear()
    toy_trainer.means = [20.0] if finished else [30.0, 20.0]  # that of the checkpoint's epoch is made again
    assert train(toy_trainer, toy_cfg, resume=True).best_metric == (20.0 if finished else 30.0)
    (said,) = warnings(caplog_fastreid)
    assert BEST in said
    assert load_checkpoint(best)["epoch"] == (3 if finished else 2)
    epochs = [entry["epoch"] for entry in json.loads((best.parent / "evaluations.json").read_text())]
    assert epochs == [1, 2, 3]
