"""Files, logging and random number generators."""

import errno
import json
import logging
import os
import random
import tempfile

import numpy as np
import pytest
import torch

from fastreid.utils import comm
from fastreid.utils.cli import exit_on_user_error
from fastreid.utils.env import (
    preserved_rng_state,
    resolve_device,
    rng_state,
    seed_all_rng,
    set_rng_state,
    use_device,
)
from fastreid.utils.errors import UserError, WorkerError, nearest_name
from fastreid.utils.file_io import (
    atomic_write,
    check_output_file,
    check_output_folder,
    named_output,
    write_json,
)
from fastreid.utils.logger import open_log_file, setup_logger, warn_once


def test_nothing_near_is_not_guessed():
    assert nearest_name("zzz", ["abc"]) == ""


def test_a_written_file_appears_complete(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_write(path, "w") as file:
        file.write("half ")
        assert not path.exists()
        file.write("whole")
    assert path.read_text() == "half whole"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_an_exception_leaves_the_earlier_file_and_no_other(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")

    def fail_halfway() -> None:
        with atomic_write(path) as file:
            file.write(b"after")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_json_is_written_readably(tmp_path):
    write_json(tmp_path / "a.json", {"mAP": 55.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"mAP": 55.5}
    assert (tmp_path / "a.json").read_text().endswith("}\n")


def test_a_named_output_gets_its_folder_or_one_line_with_its_path(tmp_path):
    with named_output(tmp_path / "new" / "a.json"):
        write_json(tmp_path / "new" / "a.json", 1)
    assert (tmp_path / "new" / "a.json").read_text() == "1\n"
    for path in (tmp_path / "new", tmp_path / "new" / "a.json" / "b.json"):
        with pytest.raises(UserError, match=f"^cannot write {path}: "), named_output(path):
            write_json(path, 1)


def test_an_output_path_is_checked_without_making_anything(tmp_path):
    (tmp_path / "file").touch()
    check_output_folder(tmp_path, "--output")
    check_output_folder(tmp_path / "new" / "deep", "--output")
    check_output_file(tmp_path / "new" / "deep" / "a.json", "--output")
    check_output_file(tmp_path / "file", "--output")
    for folder in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(UserError, match=f"--output '{folder}': {tmp_path}/file is a file, not a folder"):
            check_output_folder(folder, "--output")
    with pytest.raises(UserError, match=f"--html '{tmp_path}' is a folder, not a file"):
        check_output_file(tmp_path, "--html")
    with pytest.raises(UserError, match="--output '/proc/a/b': no permission to write in /proc"):
        check_output_folder("/proc/a/b", "--output")
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_no_reason_to_refuse_an_output_folder(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    check_output_folder(tmp_path, "--output")


def draw() -> list[float]:
    return [random.random(), np.random.rand(), torch.rand(1).item()]


def test_one_seed_fixes_every_generator():
    seed_all_rng(7)
    first = draw()
    seed_all_rng(7)
    assert draw() == first
    seed_all_rng(8)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_generator_states_survive_a_file_without_code(tmp_path):
    seed_all_rng(1)
    draw()
    torch.save(rng_state(), tmp_path / "rng.pth")
    expected = draw()
    set_rng_state(torch.load(tmp_path / "rng.pth", weights_only=True))
    assert draw() == expected


@pytest.mark.parametrize("on_cuda", [False, True])
def test_the_generator_of_cuda_is_kept_where_cuda_is_in_use_and_not_set_up_elsewhere(monkeypatch, on_cuda):
    states = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: on_cuda)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: states.append("read") or torch.ones(16))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: states.append("set"))
    set_rng_state(rng_state())
    set_rng_state(rng_state() | {"cuda": torch.ones(16)})  # of a checkpoint that a GPU wrote
    assert states == (["read", "set"] * 2 if on_cuda else [])


def test_draws_inside_the_block_leave_those_after_it():
    seed_all_rng(1)
    expected = draw()
    seed_all_rng(1)
    with preserved_rng_state():
        draw()
    assert draw() == expected


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="'cuda:1': no CUDA device"):
        resolve_device("cuda:1")
    with pytest.raises(UserError, match="'tpu9' is not a device"):
        resolve_device("tpu9")


def test_a_cuda_device_that_the_machine_does_not_have_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    current: list = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("cuda:1", "cuda", "cpu", "cpu:0"):
        assert use_device(name) == torch.device(name)
    assert current == [torch.device("cuda:1")]
    with pytest.raises(UserError, match=r"MODEL.DEVICE 'cuda:2': this machine has 2 CUDA device.s., counted"):
        resolve_device("cuda:2")


def test_without_a_process_group_one_process_is_all():
    assert (comm.get_rank(), comm.get_world_size(), comm.is_main_process()) == (0, 1, True)
    assert comm.all_gather_object("x") == ["x"]
    assert comm.broadcast_object("x") == "x"
    assert comm.all_reduce_sum(torch.tensor(2.0)) == 2.0
    comm.synchronize()


@pytest.fixture
def package_logger():
    yield logging.getLogger("fastreid")
    setup_logger()


def test_the_log_file_holds_what_came_before_it(tmp_path, package_logger, capsys):
    setup_logger()
    package_logger.info("early")
    assert not list(tmp_path.iterdir())
    open_log_file(str(tmp_path))
    package_logger.info("late")
    package_logger.debug("detail")
    lines = [line.split("] ", 1)[1] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert lines == ["fastreid INFO: early", "fastreid INFO: late", "fastreid DEBUG: detail"]
    assert [line.split("] ", 1)[1] for line in capsys.readouterr().out.splitlines()] == ["early", "late"]


def test_a_name_that_is_no_text_is_escaped_in_the_log(tmp_path, package_logger, capsys):
    setup_logger(str(tmp_path), rank=1)
    package_logger.warning("caf\udce9.jpg")
    assert r"caf\udce9.jpg" in (tmp_path / "log.txt.rank1").read_text()
    assert not capsys.readouterr().err


def test_a_second_log_file_replaces_the_first(tmp_path, package_logger):
    setup_logger(str(tmp_path / "a"))
    open_log_file(str(tmp_path / "b"))
    package_logger.info("message")
    assert not (tmp_path / "a/log.txt").exists()
    assert "message" in (tmp_path / "b/log.txt").read_text()


def test_other_ranks_write_warnings_to_their_own_file(tmp_path, package_logger, capsys):
    setup_logger(str(tmp_path), rank=3)
    package_logger.info("quiet")
    assert not list(tmp_path.iterdir())
    package_logger.warning("loud")
    assert "loud" in (tmp_path / "log.txt.rank3").read_text()
    assert capsys.readouterr().out == ""


def test_a_warning_is_given_once(package_logger, capsys):
    setup_logger()
    for _ in range(3):
        warn_once("fastreid.test", "a warning that this test alone gives")
    assert capsys.readouterr().out.count("a warning that this test alone gives") == 1


def test_user_errors_end_a_program_with_one_line(capsys):
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        raise UserError("two\nlines")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: two lines\n"
    with pytest.raises(UserError), exit_on_user_error(debug=True):
        raise UserError("x")


def test_of_the_failure_of_another_process_a_program_prints_that_alone(capsys):
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        raise WorkerError("process 1 failed:\nTraceback …")
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "error: process 1 failed:\nTraceback …\n"
    with pytest.raises(WorkerError), exit_on_user_error(debug=True):
        raise WorkerError("x")
