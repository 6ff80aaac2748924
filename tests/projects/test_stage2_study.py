"""The study of Stage 2: what it writes, what it chooses on, and that it goes on where it stopped."""

import json

import numpy as np
import pytest
import torch
from worlds.options import TINY

from fastreid.data import build_test_loader
from fastreid.engine import load_trained_model
from fastreid.utils.errors import UserError
from projects.stage2_study import study
from projects.stage2_study.encoders import Encoder
from projects.stage2_study.report import chosen_way, write_report

LONGER_CONTROL = "MLP control, 4 x the iterations"
BRIEF = [*TINY, "SOLVER.MAX_EPOCH", "1", "SOLVER.ITERS_PER_EPOCH", "2", "SOLVER.IMS_PER_BATCH", "8"]


@pytest.fixture(scope="module")
def tiny_study(tmp_path_factory):
    """The command line of a study of seconds, and its output folder after a first run."""
    folder = tmp_path_factory.mktemp("study")
    sizes = ["--identities", "8", "6", "--held-out-ids", "4", "--test-ids", "4"]
    runs = ["--layouts", "CARGO", "--seeds", "1", "2"]
    places = ["--root", str(folder / "data"), "--output", str(folder / "out")]
    chosen = ["--settings", "paper", "MLP control", LONGER_CONTROL, "cross-view, token mixing"]
    command = [*BRIEF, *sizes, *runs, *places, *chosen]
    study.main(command)
    return command, folder / "out"


def test_every_row_is_scored_on_held_out_and_test_identities(tiny_study):
    trials = json.loads((tiny_study[1] / "results.json").read_text())
    rows = {(t["identities"], t["seed"], t["setting"]) for t in trials}
    assert rows == {
        *((ids, seed, name) for ids in (8, 6) for seed in (1, 2) for name in ("paper", "MLP control")),
        # what takes longer, not on fewer identities; levers, on the first encoder alone
        *((8, seed, LONGER_CONTROL) for seed in (1, 2)),
        (8, 1, "cross-view, token mixing"),
    }
    for trial in trials:
        assert set(trial["mAP"]) == {"held out", "test"}
        for joined in trial["mAP"].values():
            assert len({frozenset(protocols) for protocols in joined.values()}) == 1
            assert all(0 <= value <= 100 for protocols in joined.values() for value in protocols.values())


def test_the_report_has_a_table_and_a_plot(tiny_study):
    table = (tiny_study[1] / "table.md").read_text()
    for text in ("CARGO_A2G", "CARGO_G2A", "Stage 1", "cross-view, token mixing", "as published", "constant"):
        assert text in table
    assert (tiny_study[1] / "gains.png").read_bytes().startswith(b"\x89PNG")


def test_generators_train_on_images_that_are_encoded_as_they_are(tiny_study):
    encoder = Encoder("CARGO", 1, 8, 4, tiny_study[1].parent / "data", tiny_study[1], tuple(BRIEF))
    model = load_trained_model(encoder.config("base_stage1", "MODEL.WEIGHTS", str(encoder.weights)))
    batches = build_test_loader(model.cfg, encoder.train_set.samples)
    with torch.inference_mode():
        expected = torch.cat([model.encode(batch).features for batch in batches])
    found = np.load(encoder.training_set / "features.npy")[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_is_finished_is_not_done_again(tiny_study, monkeypatch):
    command, output = tiny_study
    before = (output / "results.json").read_text()
    for name in ("train_generator", "train_control", "generate"):
        monkeypatch.setattr(study, name, None)
    study.main(command)
    assert (output / "results.json").read_text() == before


def test_how_to_join_is_chosen_on_held_out_identities():
    def scores(stage1: float, light: float, heavy: float) -> dict:
        ways = {"Stage 1": stage1, "weight 0.5": light, "weight 2": heavy}
        return {way: {"a": value, "b": value + 1} for way, value in ways.items()}

    trials = [{"mAP": {"held out": scores(50, 52, 51), "test": scores(50, 50, 60)}}]
    assert chosen_way(trials) == "weight 0.5"


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="no finished trial yet"):
        write_report(tmp_path)


def test_a_setting_that_does_not_exist_is_refused_before_anything_is_trained(capsys):
    with pytest.raises(SystemExit) as stopped:
        study.main(["--settings", "papr"])
    assert stopped.value.code == 2
    assert "'papr'" in capsys.readouterr().err
