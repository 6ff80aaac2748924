"""The files of an evaluation: named for what was evaluated, and never in place of a training's."""

import pytest
from toy_evaluation import ToyModel, make_cfg, make_protocols

from fastreid.evaluation import evaluate_protocols
from fastreid.evaluation.report import read_results


@pytest.fixture
def run(tmp_path):
    """OUTPUT_DIR of a training that has been evaluated."""
    evaluate_protocols(make_cfg(tmp_path), ToyModel(), make_protocols(tmp_path))
    (tmp_path / "run" / "model_best.pth").write_bytes(b"weights")
    return tmp_path / "run"


def evaluate(run, protocols=slice(None), **test) -> dict:
    cfg = make_cfg(run.parent)
    cfg.MODEL.WEIGHTS = str(run / "model_best.pth")
    cfg.merge_values({"TEST": test}, source="test")
    return evaluate_protocols(cfg, ToyModel().eval(), make_protocols(run.parent)[protocols])


def files(run) -> set[str]:
    return {path.name.removeprefix("results") for path in run.glob("results*")}


def test_an_evaluation_leaves_what_the_training_has_written(run):
    written = {path: path.read_bytes() for path in run.iterdir()}
    assert {path.name for path in written} >= {"results.json", "query_scores.npz"}
    evaluate(run)
    evaluate(run, slice(1), METRIC="euclidean")
    assert all(path.read_bytes() == content for path, content in written.items())
    assert files(run) == {".json", ".model_best.FIRST+SECOND.json", ".model_best.FIRST.json"}
    assert (run / "query_scores.model_best.FIRST.npz").exists()


def test_another_configuration_or_checkpoint_is_another_file_and_the_same_one_is_not(run):
    for _ in range(2):
        evaluate(run, slice(1))
        evaluate(run, slice(1), METRIC="euclidean")
    assert files(run) == {".json", ".model_best.FIRST.json", ".model_best.FIRST.2.json"}
    (run / "model_best.pth").write_bytes(b"others")
    evaluate(run, slice(1))
    assert files(run) > {".model_best.FIRST.3.json"}


def test_a_folder_stands_for_its_trainings_results_or_else_for_the_newest(run):
    evaluate(run, slice(1))
    assert set(read_results(run)["results"]) == {"FIRST", "SECOND"}
    assert set(read_results(run / "results.model_best.FIRST.json")["results"]) == {"FIRST"}
    (run / "results.json").unlink()
    evaluate(run, slice(1, None))
    assert set(read_results(run)["results"]) == {"SECOND"}


def test_names_that_are_no_file_names_are_made_some(run):
    cfg = make_cfg(run.parent)
    cfg.MODEL.WEIGHTS = str(run / "epoch 7, best.pth")
    protocols = make_protocols(run.parent)[:1]
    protocols[0].name = "CSV/" + "x" * 300
    evaluate_protocols(cfg, ToyModel().eval(), protocols)
    (path,) = run.glob("results.*.json")
    assert path.name.startswith("results.epoch_7_best.CSV_xxx")
