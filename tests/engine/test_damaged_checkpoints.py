"""Checkpoints in which a bit or a block has changed, and what interrupts the writing of one."""

import io
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_training import ToyModel

from fastreid.utils.checkpoint import Checkpointer, load_checkpoint
from fastreid.utils.checksums import digest
from fastreid.utils.errors import UserError


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> tuple[Path, dict, bytes]:
    """A checkpoint with several blocks of weights; its state, and its bytes."""
    weights = {"conv": torch.randn(3000), "bias": torch.randn(7, dtype=torch.float64), "n": torch.tensor(3)}
    state = {
        "model": weights,
        "optimizer": {0: {"m": torch.randn(2000)}},
        "epoch": 3,
        "meta": {"method": "M"},
    }
    path = Checkpointer(tmp_path_factory.mktemp("stored")).save("model_0001.pth", state)
    return path, state, path.read_bytes()


def check_same(loaded: dict, state: dict) -> None:
    assert (loaded["epoch"], loaded["meta"]) == (state["epoch"], state["meta"])
    assert all(torch.equal(loaded["model"][name], value) for name, value in state["model"].items())
    assert torch.equal(loaded["optimizer"][0]["m"], state["optimizer"][0]["m"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_changed_bit_is_found_wherever_it_changes_what_is_loaded(place, bit, stored):
    path, state, content = stored
    changed = bytearray(content)
    changed[int(place * len(content))] ^= 1 << bit
    path.write_bytes(changed)
    try:
        loaded = load_checkpoint(path, whole=True)
    except UserError:
        return
    check_same(loaded, state)


@pytest.mark.parametrize("name", ["conv", "bias", "n"])
@pytest.mark.parametrize("bit", [0, 31, 63])
def test_every_bit_of_the_weights_counts(name, bit, stored):
    path, state, content = stored
    for own in (content, torch_bytes(state["model"])):
        place = own.index(state["model"][name].numpy().tobytes())
        changed = bytearray(own)
        changed[place + bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(UserError, match="damaged"):
            load_checkpoint(path)


def torch_bytes(state: dict) -> bytes:
    """A file that somebody else has written."""
    torch.save(state, file := io.BytesIO())
    return file.getvalue()


def test_a_block_that_is_zeroed_or_in_another_place_is_found(stored):
    path, state, content = stored
    start = content.index(state["model"]["conv"].numpy().tobytes())
    first, second = content[start : start + 4096], content[start + 4096 : start + 8192]
    for blocks in (first + bytes(4096), second + first):
        path.write_bytes(content[:start] + blocks + content[start + 8192 :])
        with pytest.raises(UserError, match="its model is not what was written"):
            load_checkpoint(path)


def test_an_evaluation_does_not_read_what_only_a_resumed_run_needs(stored):
    path, state, content = stored
    moments = state["optimizer"][0]["m"].numpy().tobytes()
    path.write_bytes(content.replace(moments, bytes(len(moments))))
    load_checkpoint(path)
    with pytest.raises(UserError, match="its optimizer is not what was written"):
        load_checkpoint(path, whole=True)


def test_a_file_that_was_written_without_checksums_is_read(tmp_path):
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this PyTorch always writes them")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(ToyModel().state_dict(), tmp_path / "plain.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_checkpoint(tmp_path / "plain.pth")["model"].keys() == ToyModel().state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.bfloat16, torch.float32, torch.complex64])
def test_the_digest_is_that_of_the_values_however_they_lie_in_memory(dtype):
    values = torch.arange(2 * 1501).reshape(2, 1501).to(dtype)
    wide = torch.zeros(2, 1600, dtype=dtype)
    wide[:, 1:1502] = values
    for same in (values.clone(), wide[:, 1:1502], values.T.contiguous().T):
        assert digest({"a": [same]}) == digest({"a": [values]})
    flat = torch.zeros(2 * 1501 + 1, dtype=dtype)
    flat[1:] = values.flatten()
    assert digest(flat[1:].view(2, 1501)) == digest(values)
    assert digest([values, values[0]]) != digest([values[0], values])


@pytest.mark.parametrize("cause", [SystemExit(143), RuntimeError("DataLoader worker (pid 7) is killed")])
def test_what_interrupts_a_writing_is_not_taken_for_a_full_disk(cause, tmp_path, monkeypatch):
    class Interrupted(io.BytesIO):
        def write(self, content):
            raise cause

    save = torch.save
    monkeypatch.setattr(torch, "save", lambda state, file: save(state, Interrupted()))
    with pytest.raises(type(cause), match=re.escape(str(cause))):
        Checkpointer(tmp_path).save("model_0001.pth", {"model": {"weight": torch.zeros(100_000)}})
    assert os.listdir(tmp_path) == []


def test_a_worker_that_dies_while_a_checkpoint_is_written_does_not_stop_it(tmp_path, monkeypatch):
    def die(number, frame):
        raise RuntimeError("DataLoader worker is killed")

    def with_a_death(state, file, save=torch.save):
        os.kill(os.getpid(), signal.SIGCHLD)
        save(state, file)

    before = signal.signal(signal.SIGCHLD, die)
    try:
        monkeypatch.setattr(torch, "save", with_a_death)
        path = Checkpointer(tmp_path).save(
            "model_0001.pth", {"model": {"weight": torch.zeros(3)}, "iteration": 1}
        )
        assert signal.getsignal(signal.SIGCHLD) is die
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert load_checkpoint(path)["iteration"] == 1
