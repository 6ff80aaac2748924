"""One match and as many distractors for every query, against explicit loops; and the gap between views."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import Problem, float64_distances, problems
from toy_evaluation import ToyModel, make_cfg, make_protocols

from fastreid.config import get_cfg
from fastreid.data import Sample
from fastreid.evaluation import ReidEvaluator, distance, evaluate_protocols
from fastreid.evaluation.equal_terms import draw, fewest_distractors, metric_names, view_gap
from fastreid.evaluation.evaluator import sample_labels
from fastreid.evaluation.rank import check_labels
from fastreid.utils.errors import UserError


def samples_of(pids, camids) -> list[Sample]:
    pairs = zip(np.asarray(pids).tolist(), np.asarray(camids).tolist(), strict=True)
    return [Sample(f"{number}.png", pid, camid, 0, camid) for number, (pid, camid) in enumerate(pairs)]


def at_equal_terms(query, gallery, features, distractors, *options):
    """The evaluation of (Q, D) and (G, D) features, and its Rank-1 and mAP at equal terms."""
    cfg = get_cfg()
    cfg.merge_from_list(["TEST.EQUAL_TERMS.DISTRACTORS", distractors, *options])
    parts = (torch.as_tensor(part, dtype=torch.float32) for part in features)
    evaluation = ReidEvaluator(cfg).evaluate(*parts, query, gallery)
    return evaluation, [evaluation.metrics[name] for name in metric_names(distractors)]


def percent_of_drawn(distmat, draws):
    """Rank-1 and mAP: for each query, count the distractors that are not farther than its match."""
    ranks = []
    for query, (*distractors, match) in zip(draws.queries, draws.items, strict=True):
        ranks.append(1 + sum(distmat[query, item] <= distmat[query, match] for item in distractors))
    return [100 * np.mean([rank == 1 for rank in ranks]), 100 * np.mean([1 / rank for rank in ranks])]


def crowd(num_queries=60, num_gallery=400, num_people=12, seed=0):
    """Queries and a gallery of people that three cameras see."""
    rng = np.random.default_rng(seed)
    return [
        samples_of(rng.integers(0, num_people, size), rng.integers(0, 3, size))
        for size in (num_queries, num_gallery)
    ]


def noise(query, gallery, seed=0, width=16):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(len(part), width)) for part in (query, gallery)]


@settings(max_examples=80, deadline=None)
@given(problem=problems(), seed=st.integers(0, 2**63 - 1))
def test_each_query_gets_one_of_its_matches_and_different_images_of_others(problem: Problem, seed):
    labels = check_labels(len(problem.q_pids), len(problem.g_pids), *problem)
    others = []  # of every query with a match
    for pid, camid in zip(problem.q_pids, problem.q_camids, strict=True):
        if ((problem.g_pids == pid) & (problem.g_camids != camid)).any():
            others.append(int((problem.g_pids != pid).sum()))
    fewest = fewest_distractors(labels)
    assert fewest == min(others, default=len(problem.g_pids))
    draws = draw(labels, fewest, seed)
    assert len(draws.queries) == len(others)
    for query, (*distractors, match) in zip(draws.queries, draws.items, strict=True):
        assert problem.g_pids[match] == problem.q_pids[query]
        assert problem.g_camids[match] != problem.q_camids[query]
        assert len(set(distractors)) == fewest
        assert all(problem.g_pids[item] != problem.q_pids[query] for item in distractors)


def test_what_is_drawn_depends_on_labels_and_seed_alone():
    labels = sample_labels(*crowd())
    first, again, other = draw(labels, 20, 1), draw(labels, 20, 1), draw(labels, 20, 2)
    assert np.array_equal(first.items, again.items)
    assert (first.items != other.items).any(1).all()
    assert np.array_equal(first.items[:, -1], draw(labels, 5, 1).items[:, -1])
    query, gallery = crowd()
    features = noise(query, gallery)
    values = [
        at_equal_terms(query, gallery, features, 20, *options)[1]
        for options in (["MODEL.SEED", 1], ["MODEL.SEED", 2], ["TEST.EQUAL_TERMS.SEED", 2])
    ]
    assert values[0] == values[1] != values[2]


def test_every_match_and_every_other_image_can_be_drawn():
    labels = check_labels(1, 7, [5], [5, 9, 5, -1, 5, 2, 9], [0], [1, 0, 0, 1, 2, 2, 0])
    drawn = np.concatenate([draw(labels, 2, seed).items for seed in range(200)])
    assert set(drawn[:, -1]) == {0, 4}
    assert set(drawn[:, :-1].ravel()) == {1, 3, 5, 6}


@settings(max_examples=60, deadline=None)
@given(problem=problems(), seed=st.integers(0, 2**32), metric=st.sampled_from(["cosine", "euclidean"]))
def test_equals_counting_by_loops_with_ties(problem: Problem, seed, metric):
    assume(problem.has_match)
    query, gallery = (samples_of(problem[side], problem[side + 2]) for side in (0, 1))
    labels = sample_labels(query, gallery)
    distractors = fewest_distractors(labels)
    assume(distractors)
    rng = np.random.default_rng(seed)
    features = [rng.integers(-1, 2, (len(part), 3)).astype(np.float32) for part in (query, gallery)]
    _, values = at_equal_terms(query, gallery, features, distractors, "TEST.METRIC", metric)
    expected = percent_of_drawn(float64_distances(*features, metric), draw(labels, distractors, 1))
    assert values == pytest.approx(expected)


@pytest.mark.parametrize(
    "options",
    [
        ["TEST.METRIC", "jaccard"],
        ["TEST.RERANK.ENABLED", True],
        ["TEST.AQE.ENABLED", True],
        ["TEST.METRIC", "manhattan"],
    ],
    ids=["jaccard", "re-ranking", "query expansion", "a metric of one's own"],
)
def test_the_distances_are_those_of_the_evaluation(own_names, options):
    @distance.METRIC_REGISTRY.register("manhattan")
    class Manhattan(distance.Metric):
        def distances(self, q_feats, g_feats):
            return torch.cdist(q_feats, g_feats, p=1)

    query, gallery = crowd()
    features = noise(query, gallery)
    evaluation, values = at_equal_terms(query, gallery, features, 20, *options)
    distmat = np.concatenate([block.copy() for _, block in evaluation.row_blocks()])
    assert values == pytest.approx(percent_of_drawn(distmat, draw(sample_labels(query, gallery), 20, 1)))
    assert values != at_equal_terms(query, gallery, features, 20)[1]


def test_blocks_change_nothing(monkeypatch):
    query, gallery = crowd()
    features = noise(query, gallery)
    values = at_equal_terms(query, gallery, features, 20)[1]
    monkeypatch.setattr(distance, "BLOCK_ROWS", 7)
    monkeypatch.setattr(distance, "BLOCK_ELEMENTS", 900)
    assert at_equal_terms(query, gallery, features, 20)[1] == values


def test_chance_gives_one_in_all():
    query, gallery = crowd(num_queries=2000, num_people=100)
    rank_1, precision = at_equal_terms(query, gallery, noise(query, gallery), 9)[1]
    assert rank_1 == pytest.approx(10, abs=2.5)
    assert precision == pytest.approx(100 * np.mean(1 / np.arange(1, 11)), abs=2.5)


def test_perfect_features_give_100():
    query, gallery = crowd()
    features = [np.eye(12)[[sample.pid for sample in part]] for part in (query, gallery)]
    assert at_equal_terms(query, gallery, features, 99)[1] == [100, 100]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("value", [0, 0.1, 1e4])
def test_features_that_are_all_the_same_rank_last(metric, value):
    query, gallery = crowd()
    features = [np.full((len(part), 77), value) for part in (query, gallery)]
    assert at_equal_terms(query, gallery, features, 99, "TEST.METRIC", metric)[1] == pytest.approx([0, 1])


def test_a_protocol_decides_what_a_match_is():
    """The near image shows the query's view: a match by cameras, left out by views."""
    query, others = [Sample("q", 0, 3, 1)], [Sample(f"{n}", 1, 4, 0) for n in range(3)]
    same_camera, same_view = Sample("a", 0, 3, 1), Sample("b", 0, 4, 1)
    other_view = Sample("c", 0, 5, 0)
    features = [[[0.0, 1]], [[0.0, 1], [0, 1], [1, 0], *[[0.5, 1]] * 3]]
    by_camera = [same_camera, same_view, Sample("c", 1, 5, 0), *others]
    assert at_equal_terms(query, by_camera, features, 3)[1] == [100, 100]

    def by_view(samples):
        return [Sample(s.path, s.pid, s.camid, s.viewid, s.viewid) for s in samples]

    gallery = by_view([same_camera, same_view, other_view, *others])
    assert at_equal_terms(by_view(query), gallery, features, 3)[1] == [0, 25]


def test_too_many_distractors_are_refused_before_anything_is_encoded(tmp_path, protocols):
    cfg = make_cfg(tmp_path)
    cfg.TEST.EQUAL_TERMS.DISTRACTORS = 17
    model, people = ToyModel(), [sample.pid for sample in protocols[1].gallery]
    fewest = 20 - max(people.count(sample.pid) for sample in protocols[1].query)
    assert fewest < 17
    message = (
        f"protocol SECOND: a query has {fewest} gallery images of other persons, fewer than"
        f" TEST.EQUAL_TERMS.DISTRACTORS 17; set it to {fewest} or less"
    )
    with pytest.raises(UserError, match=message):
        evaluate_protocols(cfg, model, protocols)
    assert model.encoded == []
    cfg.TEST.EQUAL_TERMS.DISTRACTORS = fewest
    assert f"mAP@1:{fewest}" in evaluate_protocols(cfg, model, protocols)["SECOND"]


def seen(name: str, asked: list[int], among: list[int]) -> SimpleNamespace:
    """A protocol with queries of some views and a gallery of some."""
    query, gallery = ([Sample(f"{view}", 0, 0, view) for view in views] for views in (asked, among))
    return SimpleNamespace(name=name, query=query, gallery=gallery)


WITHIN = [(seen("AA", [0, 0], [0]), 70.0), (seen("GG", [1], [1, 1]), 60.0)]
ACROSS = [(seen("A2G", [0], [1]), 40.0), (seen("G2A", [1], [0]), 50.0), (seen("O2W", [0, 1], [2]), 30.0)]
NEITHER = [(seen("ALL", [0, 1], [0, 1]), 90.0), (seen("A2ALL", [0], [0, 1]), 91.0)]


def gap_of(cases):
    results = {task.name: {"mAP@1:99": value} for task, value in cases}
    return view_gap([task for task, _ in cases], results, 99)


def test_the_view_gap_is_within_a_view_less_across_views():
    assert gap_of([*NEITHER, *ACROSS, *WITHIN]) == (65, 40, 25)


@pytest.mark.parametrize("cases", [WITHIN, ACROSS, [*WITHIN, *NEITHER], [*ACROSS, *NEITHER], []])
def test_without_protocols_of_both_kinds_there_is_no_gap(cases):
    assert gap_of(cases) is None


@pytest.fixture
def protocols(tmp_path) -> list[SimpleNamespace]:
    """The toy protocols, the first within a view, the second across two."""

    def shown_in(view: int, samples: list[Sample]) -> list[Sample]:
        return [replace(sample, viewid=view) for sample in samples]

    within, across = make_protocols(tmp_path)
    within.query, within.gallery = shown_in(1, within.query), shown_in(1, within.gallery)
    across.query, across.gallery = shown_in(1, across.query), shown_in(0, across.gallery)
    return [within, across]


def test_the_gap_is_logged_after_the_table_and_written_apart(tmp_path, protocols, caplog_fastreid):
    cfg = make_cfg(tmp_path)
    cfg.TEST.EQUAL_TERMS.DISTRACTORS = 8
    results = evaluate_protocols(cfg, ToyModel(), protocols)
    within, across = (results[name]["mAP@1:8"] for name in ("FIRST", "SECOND"))
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert written["view_gap"] == pytest.approx({"within": within, "across": across, "gap": within - across})
    assert set(written["results"]) == {"FIRST", "SECOND"}
    table, gap, _ = caplog_fastreid.messages[-3:]
    assert gap == (
        f"View gap at equal terms (1 match, 8 distractors): within a view {within:.1f},"
        f" across views {across:.1f}, gap {within - across:.1f} mAP"
    )
    assert "mAP@1:8" in table


def test_nothing_is_said_of_equal_terms_unless_asked(tmp_path, protocols, caplog_fastreid):
    results = evaluate_protocols(make_cfg(tmp_path), ToyModel(), protocols)
    assert not [name for metrics in results.values() for name in metrics if "@1:" in name]
    assert "view_gap" not in json.loads((tmp_path / "run" / "results.json").read_text())
    assert "equal terms" not in caplog_fastreid.text
