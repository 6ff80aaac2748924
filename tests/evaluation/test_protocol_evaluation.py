"""From a model and protocols to the table and `results.json`."""

import hashlib
import json
import logging
import sys
import weakref
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from oracles import Problem, rank_by_sorting, rerank_densely
from toy_evaluation import ToyModel, evaluate_as_rank, make_cfg, make_protocols

from fastreid.data import build_test_loader
from fastreid.evaluation import ReidEvaluator, evaluate_protocols, evaluator, extract_features
from fastreid.utils.errors import UserError


@pytest.fixture
def cfg(tmp_path):
    return make_cfg(tmp_path)


@pytest.fixture
def protocols(tmp_path):
    return make_protocols(tmp_path)


def problem_of(protocol):
    parts = protocol.query, protocol.gallery
    columns = [[getattr(s, field) for s in part] for field in ("pid", "match_id") for part in parts]
    return Problem(*map(np.array, columns))


def features_of(cfg, samples):
    return extract_features(ToyModel(), build_test_loader(cfg, samples)).double().numpy()


def unit(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def percent(distmat, protocol):
    cmc, ap, inp = rank_by_sorting(distmat, problem_of(protocol))
    metrics = {f"Rank-{r}": 100 * cmc[r - 1] for r in (1, 5, 10)}
    metrics |= {"mAP": 100 * ap.mean(), "mINP": 100 * inp.mean()}
    return metrics | {"mean": (metrics["Rank-1"] + metrics["mAP"]) / 2}


def test_every_protocol_is_scored_by_cosine_distance(cfg, protocols):
    results = evaluate_protocols(cfg, ToyModel(), protocols)
    assert list(results) == ["FIRST", "SECOND"]
    for protocol in protocols:
        q, g = (unit(features_of(cfg, part)) for part in (protocol.query, protocol.gallery))
        assert results[protocol.name] == pytest.approx(percent(1 - q @ g.T, protocol))
        assert 20 < results[protocol.name]["mAP"] < 95


def test_euclidean_distance(cfg, protocols):
    cfg.TEST.METRIC = "euclidean"
    results = evaluate_protocols(cfg, ToyModel(), protocols[:1])
    q, g = (features_of(cfg, part) for part in (protocols[0].query, protocols[0].gallery))
    distmat = ((q[:, None] - g) ** 2).sum(-1)
    assert results["FIRST"] == pytest.approx(percent(distmat, protocols[0]))


@pytest.mark.parametrize(("metric", "lambda_value"), [("cosine", 0.3), ("jaccard", 0.0)])
def test_re_ranking_and_jaccard(cfg, protocols, metric, lambda_value):
    cfg.TEST.METRIC, cfg.TEST.RERANK.ENABLED = metric, metric == "cosine"
    cfg.TEST.RERANK.K1, cfg.TEST.RERANK.K2 = 6, 3
    results = evaluate_protocols(cfg, ToyModel(), protocols[:1])
    joined = unit(features_of(cfg, protocols[0].query + protocols[0].gallery))
    distmat = rerank_densely(joined, 10, 6, 3, lambda_value)
    assert results["FIRST"] == pytest.approx(percent(distmat.round(6), protocols[0]))


def test_each_image_is_encoded_once(cfg, protocols):
    model = ToyModel()
    evaluate_protocols(cfg, model, protocols)
    files = {s.path for p in protocols for s in [*p.query, *p.gallery]}
    assert Counter(model.encoded) == dict.fromkeys(files, 1)


def test_a_method_that_depends_on_its_batch_gets_each_protocol_by_itself_queries_first(cfg, protocols):
    model = ToyModel()
    model.batch_dependent = True
    results = evaluate_protocols(cfg, model, protocols)
    assert model.encoded == [s.path for p in protocols for s in [*p.query, *p.gallery]]
    assert model.evaluations == 1
    together = evaluate_protocols(cfg, ToyModel(), protocols)
    assert all(results[name] == pytest.approx(together[name]) for name in together)


def test_flip_encodes_both_orientations_once(cfg, protocols):
    cfg.TEST.FLIP.ENABLED = True
    model = ToyModel()
    evaluate_protocols(cfg, model, protocols)
    assert set(Counter(model.encoded).values()) == {2}


def test_results_file_says_what_was_evaluated(cfg, protocols, tmp_path):
    weights = tmp_path / "model_best.pth"
    weights.write_bytes(b"weights" * 1000)
    cfg.MODEL.WEIGHTS = str(weights)
    results = evaluate_protocols(cfg, ToyModel().eval(), protocols)
    written = json.loads((tmp_path / "run" / "results.model_best.FIRST+SECOND.json").read_text())
    first, second = {"queries": 10, "scored": 10, "gallery": 30}, {"queries": 15, "scored": 15, "gallery": 20}
    assert written["results"] == {"FIRST": first | results["FIRST"], "SECOND": second | results["SECOND"]}
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert written["checkpoint"] == {"path": str(weights), "sha256": digest}
    assert written["config"]["TEST"]["IMS_PER_BATCH"] == 7
    assert written["version"]


def test_a_model_in_training_is_no_longer_the_file_it_started_from(cfg, protocols, tmp_path):
    cfg.MODEL.WEIGHTS = __file__
    evaluate_protocols(cfg, ToyModel().train(), protocols)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["checkpoint"] is None


def test_the_log_has_one_row_per_protocol(cfg, protocols, caplog):
    with caplog.at_level(logging.INFO, "fastreid"):
        results = evaluate_protocols(cfg, ToyModel(), protocols)
    rows = [line.split() for line in caplog.text.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell for cell in row if cell != "|"] for row in rows]
    sizes = ["queries", "scored", "gallery"]
    assert header == ["protocol", *sizes, "Rank-1", "Rank-5", "Rank-10", "mAP", "mINP", "mean"]
    assert rows[0][:4] == ["FIRST", "10", "10", "30"]
    assert rows[1][:4] == ["SECOND", "15", "15", "20"]
    assert float(rows[1][7]) == pytest.approx(results["SECOND"]["mAP"], abs=0.005)


def test_roc_and_query_expansion_are_part_of_the_row(cfg, protocols):
    plain = evaluate_protocols(cfg, ToyModel(), protocols)["FIRST"]
    cfg.TEST.ROC.ENABLED = cfg.TEST.AQE.ENABLED = True
    expanded = evaluate_protocols(cfg, ToyModel(), protocols)["FIRST"]
    rates = [f"TPR@FPR={rate}" for rate in ("1e-4", "1e-3", "1e-2")]
    assert list(expanded) == [*plain, *rates]
    assert expanded["mAP"] != plain["mAP"]
    assert 0 <= expanded[rates[0]] <= expanded[rates[1]] <= expanded[rates[2]] <= 100


def test_without_faiss_everything_works(cfg, protocols, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    cfg.TEST.ROC.ENABLED = cfg.TEST.AQE.ENABLED = cfg.TEST.FLIP.ENABLED = True
    assert evaluate_protocols(cfg, ToyModel(), protocols)["FIRST"]["mAP"] > 0
    cfg.TEST.METRIC = "jaccard"
    assert evaluate_protocols(cfg, ToyModel(), protocols)["FIRST"]["mAP"] > 0


def test_the_features_of_a_gallery_are_gone_before_those_of_the_next_are_copied(cfg, protocols, monkeypatch):
    taken, take, alive = [], evaluator._take, []

    def watched(features, rows):
        earlier = taken[: len(taken) // 2 * 2]  # query and gallery of other protocols
        alive.append(sum(reference() is not None for reference in earlier))
        part = take(features, rows)
        taken.append(weakref.ref(part))
        return part

    monkeypatch.setattr(evaluator, "_take", watched)
    evaluate_protocols(cfg, ToyModel(), protocols)
    assert alive == [0, 0, 0, 0]


def test_unknown_metric_names_the_nearest(cfg):
    cfg.TEST.METRIC = "cosin"
    with pytest.raises(UserError, match=r"unknown metric 'cosin' in TEST.METRIC. Did you mean 'cosine'\?"):
        ReidEvaluator(cfg)


def test_a_protocol_that_cannot_be_scored_is_named(cfg, protocols):
    empty = SimpleNamespace(name="EMPTY", query=[], gallery=protocols[0].gallery)
    with pytest.raises(UserError, match="protocol EMPTY: 0 queries and 30 gallery"):
        evaluate_protocols(cfg, ToyModel(), [*protocols, empty])
    lonely = SimpleNamespace(name="LONELY", query=[protocols[0].query[0]], gallery=[protocols[0].query[1]])
    with pytest.raises(UserError, match="protocol LONELY.*no query has a match"):
        evaluate_protocols(cfg, ToyModel(), [lonely])


@pytest.mark.parametrize("reranks", [False, True])
def test_features_that_are_not_finite_are_an_error(cfg, protocols, reranks):
    cfg.TEST.RERANK.ENABLED = reranks
    model = ToyModel()
    model.layers[0].weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="protocol FIRST.*(NaN|finite)"):
        evaluate_protocols(cfg, model, protocols)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """The folder in which two processes have evaluated protocols."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("two_ranks")
    torch.save(make_protocols(folder), folder / "protocols.pt")
    mp.spawn(evaluate_as_rank, (2, folder, [7, 64]), nprocs=2)
    return folder


def test_several_processes_share_the_work_and_agree_to_the_bit(cfg, two_ranks):
    """Also when there are fewer batches than processes: 40 images in batches of 7 and of 64."""
    protocols = torch.load(two_ranks / "protocols.pt", weights_only=False)
    ranks = [torch.load(two_ranks / f"rank{rank}.pt", weights_only=False) for rank in range(2)]
    for batch_size, outcomes in zip([7, 64], zip(*ranks, strict=True), strict=True):
        cfg.TEST.IMS_PER_BATCH = batch_size
        expected = evaluate_protocols(cfg, ToyModel(), protocols)
        assert all(results == expected for results, _ in outcomes)
        encoded = [path for _, paths in outcomes for path in paths]
        assert len(encoded) == len(set(encoded)) == 40
        assert sum(1 for _, paths in outcomes if paths) == min(2, -(-40 // batch_size))
        written = json.loads((two_ranks / f"batches_of_{batch_size}" / "run" / "results.json").read_text())
        assert written["results"]["FIRST"]["mAP"] == expected["FIRST"]["mAP"]


def test_other_ranks_wait_for_rank_0_longer_than_a_collective_may_take_but_not_when_it_is_gone(two_ranks):
    """As `wait_for_rank_0` in toy_evaluation.py has it; a collective may take 1 s, a silence 2 s."""
    done, mistake, unsendable, keys, seconds, message = json.loads((two_ranks / "waits1.json").read_text())
    assert (done, mistake) == ("done", "division by zero")
    assert unsendable.startswith("ValueError('unsendable', <function")
    assert keys == 0
    assert message == "rank 0 has given no sign of life for 0:00:02"
    assert 2 < seconds < 30
