"""The study of Stage 2: what it compares, what it chooses on, and that it goes on where it stopped."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from worlds.options import TINY

from fastreid.config import check_config
from fastreid.data import build_test_loader
from fastreid.engine import load_trained_model
from fastreid.evaluation.extraction import extract_features
from fastreid.modeling import build_model, fit_config
from fastreid.structures import Sample
from fastreid.utils.errors import UserError
from projects.stage2_study import study
from projects.stage2_study.diagnostics import diagnose, real_view_cosine
from projects.stage2_study.encoders import Encoder
from projects.stage2_study.joining import baseline, join_generated
from projects.stage2_study.report import Row, chosen_ways, write_report
from projects.stage2_study.scoring import Trial, read_trials
from projects.stage2_study.settings import ALL, MEANS, NEW, PARTS, REFERENCE, SETTINGS, TOGETHER, WEIGHTS
from projects.stage2_study.trials import (
    generate,
    matched_perceptron,
    stage2_config,
    train_generator,
    trained_parameters,
)

BASELINES = ["Stage 1", "constant column", "LDA"]
BRIEF = [*TINY, "SOLVER.MAX_EPOCH", "1", "SOLVER.ITERS_PER_EPOCH", "2", "SOLVER.IMS_PER_BATCH", "8"]


@pytest.fixture(scope="module")
def tiny_study(tmp_path_factory):
    """The command line of a study of seconds, and its output folder after a first run."""
    folder = tmp_path_factory.mktemp("study")
    sizes = ["--identities", "8", "--held-out-ids", "4", "--test-ids", "4"]
    runs = ["--layouts", "CARGO", "--seeds", "1", "2"]
    places = ["--root", str(folder / "data"), "--output", str(folder / "out")]
    chosen = ["--settings", *BASELINES, "paper", f"MLP, {ALL}", f"{TOGETHER}, identity mean"]
    command = [*BRIEF, *sizes, *runs, *places, *chosen]
    study.main(command)
    return command, folder / "out"


@pytest.fixture(scope="module")
def encoder(tiny_study) -> Encoder:
    """The encoder of its first seed."""
    return Encoder("CARGO", 1, 8, 4, tiny_study[1].parent / "data", tiny_study[1], tuple(BRIEF))


def test_every_row_is_scored_on_held_out_and_test_identities(tiny_study):
    trials = json.loads((tiny_study[1] / "results.json").read_text())
    untrained = [REFERENCE, *BASELINES]
    assert {(t["seed"], t["setting"]) for t in trials} == {
        *((seed, name) for seed in (1, 2) for name in [*untrained, "paper"]),
        (1, f"{TOGETHER}, identity mean"),  # levers, on the first encoder alone
        (1, f"MLP, {ALL}"),
    }
    retrievals = {t["retrieval"] for t in trials if t["setting"] == f"MLP, {ALL}"}
    assert retrievals == {"mean", "mean, own view real"}
    for trial in trials:
        assert set(trial["mAP"]) == {"held out", "test"}
        for joined in trial["mAP"].values():
            assert len({frozenset(protocols) for protocols in joined.values()}) == 1
            assert all(0 <= value <= 100 for protocols in joined.values() for value in protocols.values())
        assert ("parameters" in trial["diagnostics"]) == (trial["setting"] not in untrained)


def test_the_report_has_a_table_and_a_plot(tiny_study):
    table = (tiny_study[1] / "table.md").read_text()
    for text in ("CARGO_A2G", "CARGO_G2A", "CARGO_AG", "LDA", "as published", "right view (chance)", "2, ±"):
        assert text in table
    for name in ("gains.png", "weights.png"):
        assert (tiny_study[1] / name).read_bytes().startswith(b"\x89PNG")


def test_generators_train_on_images_that_are_encoded_as_they_are(encoder):
    parts = ["MODEL.BACKBONE.PART_TOKENS", PARTS]
    cfg = encoder.config("base_stage1", "MODEL.WEIGHTS", str(encoder.weights), *parts)
    model = load_trained_model(cfg)
    with torch.inference_mode():
        encoded = [model.encode(batch) for batch in build_test_loader(cfg, encoder.train_set.samples)]
    for name, values in zip(encoded[0]._fields, zip(*encoded, strict=True), strict=True):
        found = np.load(encoder.training_set / f"{name}.npy")[:, 0]
        np.testing.assert_allclose(found, torch.cat(values), atol=1e-5)


def test_the_reference_is_stage_1_with_mirror_images_averaged(encoder):
    cfg = encoder.config("base_stage1", "MODEL.WEIGHTS", str(encoder.weights))
    expected = extract_features(load_trained_model(cfg), build_test_loader(cfg, encoder.samples), flip=True)
    torch.testing.assert_close(baseline(encoder, "flips", 0)["alone"], expected, atol=1e-4, rtol=1e-4)


def test_generated_features_are_joined_as_a_model_with_these_settings_does(encoder, tmp_path):
    trained = train_generator(encoder, stage2_config(encoder, tmp_path, NEW))
    generated = generate(encoder, trained, stage2_config(encoder, tmp_path, NEW, MEANS[0].options))
    test = {"FUSION": "weighted", "VIEW_WEIGHT": 0.5, "GENERATED_NECK": True, "PREDICTION": "mean"}
    for retrieval in MEANS:
        found = join_generated(encoder, generated, retrieval)
        assert list(found) == [f"weight {weight:g}" for weight in WEIGHTS]

        own = test | {"REAL_OWN_VIEW": retrieval.real_own_view}
        options = {f"TEST.SDMODEL.{name}": value for name, value in own.items()}
        cfg = fit_config(stage2_config(encoder, tmp_path, NEW, options), 8, trained.names.views)
        model = build_model(cfg, trained.names).eval()
        model.load_state_dict(trained.state_dict())
        expected = extract_features(model, build_test_loader(cfg, encoder.samples), flip=True)
        torch.testing.assert_close(found["weight 0.5"], expected, atol=1e-4, rtol=1e-4)


def test_every_setting_and_retrieval_is_a_valid_configuration(encoder, tmp_path):
    for setting in SETTINGS:
        for retrieval in setting.retrievals:
            own = {"TEST.SDMODEL.REAL_OWN_VIEW": retrieval.real_own_view, "TEST.SDMODEL.GENERATED_NECK": True}
            check_config(stage2_config(encoder, tmp_path, setting.options, retrieval.options, own))


def test_a_baseline_is_trained_on_nothing_but_training_identities(encoder):
    people = {sample.path for sample in encoder.train_set.samples}
    assert not people & {sample.path for sample in encoder.samples}
    features = baseline(encoder, "lda", PARTS)["weight 1"]
    assert features.shape == (len(encoder.samples), encoder.person.shape[2] + 7)  # 8 identities


def test_the_perceptron_has_as_many_parameters_as_the_generator_trains(encoder, tmp_path):
    cfg = fit_config(stage2_config(encoder, tmp_path, NEW), 8, ("aerial", "ground"))
    model = build_model(cfg)
    control = matched_perceptron(model)
    wanted, found = trained_parameters(model), trained_parameters(control)
    assert wanted == sum(p.numel() for p in model.generator.parameters() if p.requires_grad)
    assert found == pytest.approx(wanted, rel=0.003)
    tokens = torch.randn(2, model.backbone.num_id_tokens, 128)
    assert control(tokens, torch.randn(2, 128)).shape == (2, 128)


def people(*views: int) -> list[Sample]:
    """Pictures of one person and of two others, in these views."""
    return [Sample(f"{pid}_{row}", pid, 0, view) for pid in (3, 5, 9) for row, view in enumerate(views)]


class TestDiagnostics:
    def test_they_are_those_of_a_plain_loop(self):
        samples, generator = people(0, 0, 1, 2, 2), torch.Generator().manual_seed(0)
        generated = torch.randn(15, 3, 8, generator=generator)
        real = torch.randn(15, 8, generator=generator)
        right, chance, cosines = [], [], []
        for row, sample in enumerate(samples):
            for view in range(3):
                if view == sample.viewid:
                    continue
                others = [o for o in range(15) if samples[o].pid == sample.pid and o != row]
                near = max(others, key=lambda o: F.cosine_similarity(generated[row, view], real[o], dim=0))
                right.append(samples[near].viewid == view)
                chance.append(np.mean([samples[o].viewid == view for o in others]))
            pairs = ((0, 1), (0, 2), (1, 2))
            cosines += [F.cosine_similarity(generated[row, a], generated[row, b], dim=0) for a, b in pairs]
        found = diagnose(generated, real, samples)
        assert found["right_view"] == pytest.approx(100 * np.mean(right))
        assert found["chance"] == pytest.approx(100 * np.mean(chance))
        assert found["view_cosine"] == pytest.approx(float(np.mean(cosines)), abs=1e-6)
        across = [
            F.cosine_similarity(real[a], real[b], dim=0)
            for a in range(15)
            for b in range(15)
            if samples[a].pid == samples[b].pid and samples[a].viewid != samples[b].viewid
        ]
        assert real_view_cosine(real, samples) == pytest.approx(float(np.mean(across)), abs=1e-6)

    def test_a_perfect_generator_is_right_and_one_that_repeats_the_image_is_not(self):
        samples = people(0, 0, 0, 1, 1, 1)
        of_view = torch.eye(8)[[sample.viewid for sample in samples]]
        real = of_view + 0.1 * torch.eye(18)[:, :8]
        perfect = diagnose(torch.eye(8)[:2].expand(18, 2, 8), real, samples)
        assert (perfect["right_view"], perfect["view_cosine"]) == (100, 0)
        assert perfect["chance"] == pytest.approx(60)  # 3 of the 5 others
        assert diagnose(real[:, None].expand(18, 2, 8), real, samples)["right_view"] == 0


def test_what_is_finished_is_not_done_again(tiny_study, monkeypatch):
    command, output = tiny_study
    before = (output / "results.json").read_text()
    for name in ("train_generator", "train_perceptron", "generate", "baseline"):
        monkeypatch.setattr(study, name, None)
    study.main(command)
    assert (output / "results.json").read_text() == before


def trial(scores: dict[str, dict[str, float]], seed: int = 1, setting: str = "a") -> Trial:
    return Trial("CARGO", seed, 8, setting, "", {"held out": scores, "test": scores}, {})


@pytest.mark.parametrize(("layout", "best"), [("CARGO", "weight 0.5"), ("AG_ReID_v2", "weight 2")])
def test_how_to_join_is_chosen_on_held_out_identities(layout, best):
    """On CARGO's layout both ways at once, else all ways."""

    def scores(two_way: float, one_way: float) -> dict[str, float]:
        return {"held_out_two_way": two_way, "one": one_way, "other": one_way}

    held_out = {"as published": scores(1, 1), "weight 0.5": scores(52, 50), "weight 2": scores(51, 60)}
    test = {"as published": scores(1, 1), "weight 0.5": scores(0, 0), "weight 2": scores(0, 0)}
    one = Trial(layout, 1, 8, "s", "", {"held out": held_out, "test": test}, {})
    assert chosen_ways([one]) == ["as published", best]


def test_held_out_identities_are_searched_both_ways_as_in_cargo_ag(encoder):
    *one_way, both = encoder.splits["held out"]
    assert both.name == "held_out_two_way"
    assert {s.path for s in both.query} == {s.path for protocol in one_way for s in protocol.query}
    assert [s.path for s in both.query] == [s.path for s in both.gallery]
    (cargo_ag,) = [protocol for protocol in encoder.splits["test"] if protocol.name == "CARGO_AG"]
    for sample in (*both.query, *cargo_ag.query, *cargo_ag.gallery):
        assert sample.match_id == sample.viewid


def test_gains_are_means_over_seeds_and_protocols_with_an_interval_over_persons():
    rng, persons = np.random.default_rng(0), {"A": np.arange(40) // 4, "B": np.arange(10) // 2}

    def scored(way: str, seed: int, more: float):
        precisions = {name: rng.random(len(own)) * 0.1 + more for name, own in persons.items()}
        queries = {f"{name}/{way}": values for name, values in precisions.items()}
        maps = {name: 100 * float(values.mean()) for name, values in precisions.items()}
        return trial({way: maps}, seed), queries | {f"{name}/persons": own for name, own in persons.items()}

    ours, theirs = (
        [scored(way, seed, more) for seed in (1, 2)] for way, more in (("weight 1", 0.4), ("alone", 0.3))
    )
    row = Row(("a", ""), "weight 1", ours, theirs)
    gain = row.gain(("A", "B"))
    assert gain.mean == pytest.approx(np.mean(list(row.seed_gains(("A", "B")).values())))
    assert gain.low < gain.mean < gain.high
    assert 7 < gain.low  # 10 points apart, and noise
    assert gain.high < 13


def test_seeds_that_were_scored_on_other_queries_are_refused():
    one, other = ({"A/alone": np.ones(2), "A/persons": np.array(own)} for own in ([1, 2], [1, 3]))
    scored = [(trial({"alone": {"A": 100.0}}, seed), queries) for seed, queries in ((1, one), (2, other))]
    with pytest.raises(UserError, match="other queries"):
        Row(("a", ""), "alone", scored, scored).gain(("A",))


def test_a_report_of_nothing_is_refused(tmp_path):
    assert read_trials(tmp_path) == []
    with pytest.raises(UserError, match="no finished trial yet"):
        write_report(tmp_path)


def test_a_damaged_trial_is_named(tiny_study, tmp_path):
    shutil.copytree(tiny_study[1] / "CARGO", tmp_path / "CARGO")
    path = next(tmp_path.glob("*/*/results/*.json"))
    content = json.loads(path.read_text())
    said = f"{re.escape(str(path))}, or its .npz, is damaged.*remove {path}"
    other = [{**content, "seeds": 1}, {**content, "mAP": []}, {**content, "mAP": {"test": {}}}, []]
    for damage in (b"", path.read_bytes()[:-9], *(json.dumps(values).encode() for values in other)):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=said):
            read_trials(tmp_path)
    path.write_text(json.dumps(content))
    queries = path.with_suffix(".npz")
    for damage in (b"", queries.read_bytes()[:-9], b"[]"):
        queries.write_bytes(damage)
        with pytest.raises(UserError, match="is damaged"):
            read_trials(tmp_path)
    queries.unlink()
    with pytest.raises(UserError, match="has no scores of queries beside it"):
        read_trials(tmp_path)


def test_a_damaged_encoding_is_named_before_anything_is_trained_on_it(encoder, tmp_path):
    copy = replace(encoder, output=tmp_path)
    shutil.copytree(encoder.test_set, copy.test_set)
    shutil.copytree(encoder.training_set, copy.training_set)
    copy.train()
    for damage in (b"", (copy.training_set / "features.npy").read_bytes()[:-9]):
        (copy.training_set / "features.npy").write_bytes(damage)
        with pytest.raises(UserError, match=r"training_set/features.npy cannot be read.*remove .*complete"):
            copy.train()


def test_a_setting_that_does_not_exist_is_refused_before_anything_is_trained(capsys):
    with pytest.raises(SystemExit) as stopped:
        study.main(["--settings", "papr"])
    assert stopped.value.code == 2
    assert "'papr'" in capsys.readouterr().err
