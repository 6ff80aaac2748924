"""Same bytes for any number of processes, resuming, and folders that belong to someone else."""

import fcntl
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import pytest

from fastreid.rendered import LAYOUTS, MANIFEST, write_benchmark, writer
from fastreid.utils.errors import UserError


@pytest.mark.parametrize("benchmark", LAYOUTS)
def test_two_workers_write_the_bytes_of_one(written, spec, digests, tmp_path, benchmark):
    folder = write_benchmark(benchmark, tmp_path, spec, workers=2)
    assert digests(folder) == digests(written / benchmark)


def test_another_seed_gives_other_people(written, spec, digests, tmp_path):
    folder = write_benchmark("CARGO", tmp_path, replace(spec, seed=8), workers=2)
    before = set(digests(written / "CARGO").values())
    assert not before & {d for path, d in digests(folder).items() if path.endswith(".jpg")}


def test_missing_and_half_written_files_are_made_again(written, spec, digests, tmp_path):
    folder = write_benchmark("AG_ReID_v2", tmp_path, spec, workers=2)
    pictures = sorted(folder.rglob("*.jpg"))
    pictures[0].unlink()
    pictures[1].write_bytes(b"")
    pictures[2].write_bytes(pictures[2].read_bytes()[:100])
    pictures[3].with_name(f".{pictures[3].name}.tmp").write_bytes(b"left over")
    (folder / "exp1_aerial_to_cctv.txt").unlink()
    (folder / "qut_attribute_v8.mat").unlink()
    kept = pictures[4].stat().st_mtime_ns
    write_benchmark("AG_ReID_v2", tmp_path, spec, workers=1)
    assert digests(folder) == digests(written / "AG_ReID_v2")
    assert pictures[4].stat().st_mtime_ns == kept, "whole files are not written again"


def test_a_failure_half_way_leaves_whole_files_and_is_resumed(written, spec, digests, tmp_path, monkeypatch):
    calls = iter(range(1000))

    def fail_at_the_tenth(*args):
        if next(calls) == 10:
            raise OSError(28, "No space left on device", "somewhere.jpg")
        return render_jpeg(*args)

    render_jpeg = writer.render_jpeg
    monkeypatch.setattr(writer, "render_jpeg", fail_at_the_tenth)
    with pytest.raises(UserError, match=r"cannot write .*No space left"):
        write_benchmark("LAGPeR", tmp_path, spec, workers=1)
    monkeypatch.undo()
    reference = digests(written / "LAGPeR")
    partial = digests(tmp_path / "LAGPeR")
    assert json.loads((tmp_path / "LAGPeR" / MANIFEST).read_text())["complete"] is False
    partial.pop(MANIFEST)
    assert len(partial) == 10
    assert partial.items() <= reference.items()
    write_benchmark("LAGPeR", tmp_path, spec, workers=1)
    assert digests(tmp_path / "LAGPeR") == reference
    assert json.loads((tmp_path / "LAGPeR" / MANIFEST).read_text())["complete"] is True


def test_a_killed_run_is_completed_by_the_next(spec, digests, tmp_path):
    larger = replace(spec, train_ids=14, test_ids=14)
    process = multiprocessing.get_context("fork").Process(
        target=write_benchmark, args=("CARGO", tmp_path / "killed", larger, 2)
    )
    process.start()
    folder = tmp_path / "killed" / "CARGO"
    while process.is_alive() and sum(1 for _ in folder.rglob("*.jpg")) < 20:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert 20 <= sum(1 for _ in folder.rglob("*.jpg")) < 224
    wait_for_release(folder)
    write_benchmark("CARGO", tmp_path / "killed", larger, workers=2)
    write_benchmark("CARGO", tmp_path / "whole", larger, workers=1)
    assert digests(folder) == digests(tmp_path / "whole" / "CARGO")


def wait_for_release(folder, seconds=10.0):
    """The workers of a killed run notice at their next picture that it is gone."""
    deadline = time.monotonic() + seconds
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                assert time.monotonic() < deadline, "the workers outlive their parent"
                time.sleep(0.05)
    finally:
        os.close(descriptor)


def test_a_worker_that_dies_is_reported(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "render_jpeg", lambda *args: os._exit(1))
    with pytest.raises(UserError, match="was killed; run again"):
        write_benchmark("AG_ReID_v1", tmp_path, spec, workers=2)


def test_a_fault_in_a_worker_brings_its_traceback(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "render_jpeg", lambda *args: 1 // 0)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        write_benchmark("AG_ReID_v1", tmp_path, spec, workers=2)


def test_a_folder_of_someone_else_is_not_touched(spec, digests, tmp_path):
    theirs = tmp_path / "CARGO"
    (theirs / "train" / "Cam1").mkdir(parents=True)
    (theirs / "train" / "Cam1" / "Cam1_day_1_1.jpg").write_bytes(b"a real photograph")
    before = digests(theirs)
    with pytest.raises(UserError, match="was not written by this tool"):
        write_benchmark("CARGO", tmp_path, spec, workers=1)
    assert digests(theirs) == before


@pytest.mark.parametrize("content", ["{", "[]", '{"author": "someone", "parameters": {}}'])
def test_a_strange_manifest_is_not_taken_for_ours(spec, digests, tmp_path, content):
    (tmp_path / "CARGO").mkdir()
    (tmp_path / "CARGO" / MANIFEST).write_text(content)
    before = digests(tmp_path)
    with pytest.raises(UserError, match=MANIFEST):
        write_benchmark("CARGO", tmp_path, spec, workers=1)
    assert digests(tmp_path) == before


def test_an_empty_folder_may_be_filled(spec, digests, written, tmp_path):
    (tmp_path / "AG_ReID_v1").mkdir()
    (tmp_path / "AG_ReID_v1" / f".{MANIFEST}.123.tmp").write_text("{")  # killed before the first rename
    write_benchmark("AG_ReID_v1", tmp_path, spec, workers=1)
    folder = digests(tmp_path / "AG_ReID_v1")
    assert digests(written / "AG_ReID_v1").items() <= folder.items()


@pytest.mark.parametrize(
    "change", [{"seed": 9}, {"size": (48, 24)}, {"train_ids": 5}, {"images_per_camera": 3}]
)
def test_other_parameters_are_refused_by_name(written, spec, digests, change):
    before = digests(written / "AG_ReID_v1")
    with pytest.raises(UserError, match=next(iter(change))):
        write_benchmark("AG_ReID_v1", written, replace(spec, **change), workers=1)
    assert digests(written / "AG_ReID_v1") == before


def test_a_file_in_the_place_of_the_folder_is_refused(spec, tmp_path):
    (tmp_path / "CARGO").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write_benchmark("CARGO", tmp_path, spec, workers=1)


def test_two_runs_do_not_share_a_folder(spec, tmp_path):
    folder = write_benchmark("AG_ReID_v1", tmp_path, spec, workers=1)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process"):
            write_benchmark("AG_ReID_v1", tmp_path, spec, workers=1)
    finally:
        os.close(descriptor)
