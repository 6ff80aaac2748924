"""Environment variables of launchers: numbers that fit each other, or one error."""

import pytest

from fastreid.deploy.workers import run_shared
from fastreid.engine import default_argument_parser, launch, setup_config
from fastreid.engine.defaults import world_size_of
from fastreid.utils.errors import UserError
from fastreid.utils.launcher import launcher_place, started_by_launcher

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def environment(monkeypatch):
    """`environment(RANK=…)` sets these variables and no others."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return lambda **values: [monkeypatch.setenv(name, str(value)) for name, value in values.items()]


def test_without_both_rank_and_size_no_launcher_has_started_the_process(environment):
    environment(RANK="nonsense")
    assert not started_by_launcher()
    assert world_size_of(default_argument_parser().read([])) == 1


def test_what_torchrun_says(environment):
    environment(RANK=5, WORLD_SIZE=8, LOCAL_RANK=1, LOCAL_WORLD_SIZE=4)
    assert launcher_place() == (5, 8, 1, 4)
    assert world_size_of(default_argument_parser().read([])) == 8


def test_a_local_rank_without_the_number_of_them(environment):
    environment(RANK=3, WORLD_SIZE=4, LOCAL_RANK=3)
    assert launcher_place() == (3, 4, 3, 1)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("RANK", "", "from 0 to 3"),
        ("RANK", "one", "from 0 to 3"),
        ("RANK", "4", "from 0 to 3"),
        ("RANK", "-1", "from 0 to 3"),
        ("RANK", "1.0", "from 0 to 3"),
        ("RANK", "٣", "from 0 to 3"),
        ("WORLD_SIZE", "0", "from 1 to 1048576"),
        ("WORLD_SIZE", "9" * 5000, "from 1 to 1048576"),
        ("LOCAL_RANK", "2", "from 0 to 1"),
        ("LOCAL_WORLD_SIZE", "5", "from 1 to 4"),
    ],
)
def test_nonsense_is_named_wherever_it_is_read(environment, name, value, expected):
    environment(**{"RANK": 0, "WORLD_SIZE": 4, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2, name: value})
    said = f"environment variable {name} is .*expected a whole number {expected}; .*torchrun"
    parsed = default_argument_parser().read([])
    for start in (
        lambda: setup_config(parsed),
        lambda: launch(len, args=([],), device="cpu"),
        lambda: run_shared(len, ([],), 1, "cpu"),
    ):
        with pytest.raises(UserError, match=said):
            start()


PLACES = [{}, {"MASTER_ADDR": "localhost"}, {"MASTER_ADDR": "localhost", "MASTER_PORT": "x"}]


PLACES = [{}, {"MASTER_ADDR": "localhost"}, {"MASTER_ADDR": "localhost", "MASTER_PORT": "x"}]


@pytest.mark.parametrize("place", PLACES)
def test_processes_need_a_place_to_meet(environment, place):
    environment(RANK=0, WORLD_SIZE=1, **place)
    with pytest.raises(UserError, match="environment variable MASTER_(ADDR is missing|PORT is '(-1|x)')"):
        launch(len, args=([],), device="cpu")
