"""Scalars: recorded without waiting, smoothed, written, and kept over a resume."""

import json
import sys

import pytest
import torch

from fastreid.utils import comm
from fastreid.utils.events import EventStorage, JSONWriter, TensorBoardWriter, put_scalar
from fastreid.utils.logger import warn_once


def test_outside_a_training_loop_nothing_is_recorded():
    storage = EventStorage()
    put_scalar("loss", 1.0)
    with storage:
        put_scalar("loss", 2.0)
    put_scalar("loss", 3.0)
    assert storage.latest("loss") == 2.0
    assert storage.smoothed("loss") == 2.0


def test_a_nested_storage_keeps_the_outer_one_clean():
    with EventStorage() as outer:
        with EventStorage():
            put_scalar("loss", 1.0)
        assert outer.take_updates() == {}


def test_smoothing_is_the_mean_over_the_window():
    storage = EventStorage(window=3)
    for value in (100.0, 1.0, 2.0, 6.0):
        storage.put_scalar("loss", value)
    assert storage.smoothed("loss") == 3.0
    assert storage.latest("loss") == 6.0


def test_tensors_are_kept_as_they_were_without_their_graph():
    storage = EventStorage()
    value = torch.tensor(1.0, requires_grad=True)
    result = value * 2
    storage.put_scalar("loss", result)
    with torch.no_grad():
        result += 5
    (kept,) = storage._history["loss"]
    assert isinstance(kept, torch.Tensor)
    assert not kept.requires_grad
    assert storage.latest("loss") == 2.0


def test_of_the_ranks_tensors_the_mean_is_kept_and_of_plain_numbers_the_own(monkeypatch):
    told = []

    def gather(own: dict) -> list[dict]:
        told.append(own)
        return [own, {"loss": [5.0, 7.0], "time": [], "rare": [9.0, 9.0]}]

    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "all_gather_object", gather)
    storage = EventStorage()
    storage.load_state_dict({"history": {"loss": [2.0]}, "updated": []})  # a mean already
    for value in (1.0, 3.0):
        storage.put_scalar("loss", torch.tensor(value))
        storage.put_scalar("time", value)
    storage.put_scalar("rare", torch.tensor(4.0))  # which the other rank has recorded twice
    assert storage.state_dict()["history"] == {"loss": [2.0, 3.0, 5.0], "time": [1.0, 3.0], "rare": [4.0]}
    assert told == [{"loss": [1.0, 3.0], "time": [], "rare": [4.0]}]
    storage.state_dict()
    assert told[1] == {"loss": [], "time": [], "rare": []}  # each number travels once


def test_only_single_numbers_are_scalars():
    with pytest.raises(ValueError, match=r"'loss'.*\(2,\)"):
        EventStorage().put_scalar("loss", torch.zeros(2))


def test_updates_are_given_out_once():
    storage = EventStorage()
    storage.put_scalar("a", 1.0)
    storage.put_scalar("b", 2.0)
    assert storage.take_updates() == {"a": 1.0, "b": 2.0}
    storage.put_scalar("b", 3.0)
    assert storage.take_updates() == {"b": 3.0}
    assert storage.take_updates() == {}


def test_the_state_is_plain_and_restores_smoothing_and_updates():
    storage, copy = EventStorage(), EventStorage()
    storage.put_scalar("a", torch.tensor(1.0))
    storage.take_updates()
    storage.put_scalar("b", 2.0)
    state = json.loads(json.dumps(storage.state_dict()))
    copy.load_state_dict(state)
    assert copy.smoothed("a") == 1.0
    assert copy.take_updates() == {"b": 2.0}


def write(path, start: int, iterations: range) -> list[int]:
    writer, storage = JSONWriter(path, start), EventStorage()
    for storage.iteration in iterations:
        writer.write(storage, {"loss": 0.5})
    writer.close()
    return [json.loads(line)["iteration"] for line in path.read_text().splitlines()]


def test_a_resumed_run_replaces_the_lines_that_it_repeats(tmp_path):
    path = tmp_path / "metrics.json"
    write(path, 0, range(1, 6))
    with open(path, "a") as file:
        file.write('{"iteration": 6, "lo')  # killed while writing
    assert write(path, 3, range(4, 7)) == [1, 2, 3, 4, 5, 6]


def test_tensorboard_files_hold_the_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer, storage = TensorBoardWriter(tmp_path), EventStorage()
    storage.iteration = 7
    writer.write(storage, {"loss": 0.5})
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(7, 0.5)]


def test_without_tensorboard_there_is_one_warning_and_no_file(tmp_path, monkeypatch, caplog_fastreid):
    warn_once.cache_clear()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for _ in range(2):
        writer = TensorBoardWriter(tmp_path)
        writer.write(EventStorage(), {"loss": 1.0})
        writer.close()
    assert caplog_fastreid.text.count("tensorboard is not installed") == 1
    assert list(tmp_path.iterdir()) == []
