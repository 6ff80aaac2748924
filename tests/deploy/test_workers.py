"""Processes that share work out: which failures end the others, and which do not."""

import os
import signal
import time
from pathlib import Path

import pytest

from fastreid.deploy import workers
from fastreid.deploy.workers import run_shared
from fastreid.utils.errors import UserError


def act(folder: Path, *actions: str) -> None:
    """Do the first of the actions that no other process does."""
    (folder / str(os.getpid())).touch()
    for number, action in enumerate(actions):
        try:
            (folder / f"action{number}").mkdir()
        except FileExistsError:
            continue
        if action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "mistake":
            raise UserError("a mistake", "mend it")
        if action == "fault":
            raise ValueError("a fault")
        if action == "sleep":
            time.sleep(100)
        return


@pytest.fixture(autouse=True)
def quick_start(monkeypatch) -> None:
    monkeypatch.setattr(workers, "START_METHOD", "fork")


class TestSeveral:
    def test_each_works_and_one_that_is_killed_ends_no_other(self, tmp_path, capfd):
        assert run_shared(act, (tmp_path, "die", "work"), 2, "cpu")
        assert len(list(tmp_path.glob("action*"))) == 2
        assert "was killed by SIGKILL; others do its work" in capfd.readouterr().err

    def test_a_mistake_ends_all(self, tmp_path):
        begun = time.monotonic()
        with pytest.raises(UserError, match="^a mistake; mend it$"):
            run_shared(act, (tmp_path, "mistake", "sleep"), 2, "cpu")
        assert time.monotonic() - begun < 90
        for path in tmp_path.glob("[0-9]*"):
            assert not Path("/proc", path.name).exists()

    def test_a_fault_shows_its_traceback_and_ends_all(self, tmp_path, capfd):
        with pytest.raises(SystemExit) as stopped:
            run_shared(act, (tmp_path, "fault", "sleep"), 2, "cpu")
        assert stopped.value.code == 1
        assert capfd.readouterr().err.splitlines()[-1] == "ValueError: a fault"

    def test_all_killed(self, tmp_path):
        with pytest.raises(UserError, match="all processes were killed.*run the same command again"):
            run_shared(act, (tmp_path, "die", "die"), 2, "cpu")

    def test_one_gpu_for_two(self, tmp_path):
        with pytest.raises(UserError, match="cuda:1 is one GPU for 2 processes"):
            run_shared(act, (tmp_path,), 2, "cuda:1")


def test_one_of_torchruns_works_itself_and_the_first_tells(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        assert run_shared(act, (tmp_path, "work", "work"), 7, "cpu") == (rank == 0)
    assert [path.name for path in tmp_path.glob("[0-9]*")] == [str(os.getpid())]
