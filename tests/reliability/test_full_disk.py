"""A full disk, or a folder that turns read-only: a clear line, and every earlier checkpoint intact."""

import errno
import gc
import os
import re
import stat
import subprocess

import pytest
import torch
from tiny_runs import arguments, final_state, logged, same, train

from fastreid.engine import storage_errors_named
from fastreid.evaluation.report import read_results
from fastreid.utils.checkpoint import Checkpointer, load_checkpoint
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write

STATE = {"model": {"weight": torch.arange(300_000.0)}, "meta": {}}  # 1.2 MB


@pytest.fixture
def disk(tmp_path):
    """A file system of its own; `disk.mount(size or "ro")` changes it. Needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")

    mount("size=2m")
    yield folder, lambda options: mount(f"remount,{options}")
    gc.collect()  # of tensors that are mapped from files there
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_failed_writing_leaves_the_file_of_that_name_and_no_other(call, number, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("before")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=os.strerror(number)), atomic_write(path, "w") as file:
        file.write("after")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"


def test_an_output_folder_that_is_removed_is_named(tmp_path):
    gone = tmp_path / "gone"
    with pytest.raises(UserError, match=f"{gone}' was removed"), storage_errors_named(str(gone), "", ""):
        (gone / "file").write_text("")


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    calls = []

    def synced(descriptor, fsync=os.fsync):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(*names, replace=os.replace):
        calls.append("rename")
        replace(*names)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    with atomic_write(tmp_path / "file", "w") as file:
        file.write("content")
    assert calls == ["file", "rename", "folder"]


def fill(folder, leave: int = 0) -> None:
    """Take all room of the file system but `leave` bytes."""
    room = os.statvfs(folder)
    (folder / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize - leave))


def test_an_evaluation_on_a_full_disk_prints_its_metrics_and_stops_with_one_line(
    disk, cargo, trained, tmp_path
):
    folder, _ = disk
    line = ("--eval-only", "MODEL.WEIGHTS", trained[1] / "model_best.pth")
    assert train(*arguments(1, cargo, tmp_path / "elsewhere", *line)).code == 0
    fill(folder)
    ran = train(*arguments(1, cargo, folder, *line))
    assert ran.code == 2
    (said,) = ran.err.splitlines()
    assert re.match(r"error: cannot write in OUTPUT_DIR .*: No space left on device\. The metrics are", said)
    for protocol, metrics in read_results(tmp_path / "elsewhere")["results"].items():
        (row,) = re.findall(rf"\| {protocol} .*", ran.out)
        assert f"| {metrics['mAP']:.2f} |" in re.sub(" +", " ", row)
    assert ran.out.count("log.txt cannot be written") == 1
    assert "Traceback" not in ran.out
    assert not list(folder.glob("*.json"))


def test_a_full_disk_keeps_the_checkpoints_that_are_there(disk):
    folder, remount = disk
    saver = Checkpointer(folder)
    saver.save("model_0001.pth", STATE)
    with pytest.raises(UserError, match=r"cannot write checkpoint .*model_0002.pth.*--resume") as error:
        saver.save("model_0002.pth", STATE)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in folder.iterdir()) == ["last_checkpoint", "model_0001.pth"]
    with pytest.raises(UserError, match="Earlier checkpoints are intact"):
        saver.save("model_0001.pth", STATE)  # under the same name, too
    path, state = saver.load_last()
    assert path.name == "model_0001.pth"
    assert same(state, STATE)

    remount("ro")
    with pytest.raises(UserError, match="cannot write checkpoint"):
        saver.save("model_0003.pth", STATE)
    assert same(load_checkpoint(folder / "model_0001.pth"), STATE)


def test_a_run_on_a_full_disk_stops_with_one_line_and_resumes_exactly(disk, trained, cargo):
    folder, remount = disk
    size = (trained[1] / "model_final.pth").stat().st_size
    remount(f"size={int(size * 2.2)}")  # room for two checkpoints: the third cannot be written
    line = arguments(1, cargo, folder / "run")
    code, _, error = train(*line)
    assert code == 2
    (said,) = error.splitlines()
    assert said.startswith(f"error: cannot write checkpoint {folder}/run/model_")
    assert "go on with --resume" in said
    for path in (folder / "run").glob("model_*.pth"):
        load_checkpoint(path)
    assert not list((folder / "run").glob("*.tmp"))

    remount("size=100m")
    assert train(*line, "--resume").code == 0
    assert same(final_state(folder / "run"), final_state(trained[1]))
    assert logged(folder / "run") == logged(trained[1])


def test_metrics_that_cannot_be_written_are_one_line_too(disk, cargo):
    folder, remount = disk
    remount("size=64k")
    code, _, error = train(*arguments(1, cargo, folder / "run", "SOLVER.ITERS_PER_EPOCH", 1000))
    assert code == 2
    (said,) = error.splitlines()
    assert said.startswith(
        f"error: cannot write in OUTPUT_DIR {str(folder / 'run')!r}: No space left on device"
    )
    assert "--resume" in said


def test_a_read_only_output_folder_is_named_before_anything_else(disk, cargo):
    folder, remount = disk
    remount("ro")
    code, _, error = train(*arguments(1, cargo, folder / "run"))
    assert code == 2
    (said,) = error.splitlines()
    assert f"no permission to write in {folder}" in said
