"""The plan of a comparison: what is trained, in which order, and the mistakes that are found before."""

import re

import pytest
from worlds.options import REPO

from fastreid.comparison.plan import check_before, plan_trainings, read_contenders
from fastreid.modeling import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baselines import ViTBaseline
from fastreid.utils.errors import UserError

CARGO = REPO / "configs" / "CARGO"
V2 = str(REPO / "configs" / "v2" / "bot.yml")
SDREID = [str(CARGO / f"{name}.yml") for name in ("vit_baseline", "base_stage1", "base_stage2_step5")]


def test_every_method_has_every_seed_and_stage_2_its_own_stage_1(tmp_path):
    trainings = plan_trainings(read_contenders(SDREID, ["MODEL.SEED", "7"]), 2, tmp_path)
    assert [(t.contender.name, t.seed, t.folder.name) for t in trainings] == [
        (name, 7 + seed, f"seed{seed + 1}")
        for seed in range(2)
        for name in ("vit_baseline", "base_stage1", "base_stage2_step5")
    ]
    starts = [t.weights for t in trainings]
    own = [tmp_path / "base_stage1" / f"seed{seed}" / "model_final.pth" for seed in (1, 2)]
    assert starts == [None, None, own[0], None, None, own[1]]
    assert trainings[2].options[-2:] == ["MODEL.WEIGHTS", str(own[0])]


def test_full_size_configurations_are_compared_as_they_are():
    for contender in read_contenders(SDREID, []):
        assert contender.cfg.SOLVER.MAX_EPOCH == 120
        assert contender.cfg.DATASETS.TESTS == ["CARGO", "CARGO_GG", "CARGO_AA", "CARGO_AG"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([SDREID[0], SDREID[2]], "starts from a model of SDReIDStage1; .* here: none"),
        ([SDREID[0], SDREID[0]], "two configurations are named vit_baseline"),
        (
            [SDREID[0], V2],
            r"cannot be compared: DATASETS.NAMES \['AG_ReID_v2'\]",
        ),
    ],
)
def test_a_mistake_in_the_choice_of_configurations_is_told(files, said):
    with pytest.raises(UserError, match=said):
        read_contenders(files, [])


def test_two_configurations_of_stage_1_leave_it_open_which_one_is_meant(tmp_path):
    second = tmp_path / "mine.yml"
    second.write_text(f"_BASE_: {SDREID[1]}\n")
    with pytest.raises(UserError, match="base_stage1, mine"):
        read_contenders([*SDREID, str(second)], [])


def test_methods_that_start_from_each_other_are_refused(own_names, tmp_path):
    for name, start in (("First", "Second"), ("Second", "First")):
        META_ARCH_REGISTRY.register(name, type(name, (ViTBaseline,), {"starts_from": (start,)}))
        text = f"_BASE_: {SDREID[0]}\nMODEL: {{META_ARCHITECTURE: {name}}}\n"
        (tmp_path / f"{name}.yml").write_text(text)
    with pytest.raises(UserError, match="First, Second start from each other"):
        read_contenders([str(tmp_path / "First.yml"), str(tmp_path / "Second.yml")], [])


def test_data_and_pretrained_files_are_looked_for_before_the_first_training(tmp_path, cargo):
    contenders = read_contenders(SDREID[:1], ["DATASETS.ROOT", str(tmp_path)])
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        check_before(contenders, tmp_path / "out")
    contenders = read_contenders(SDREID[:1], ["DATASETS.ROOT", str(cargo)])
    with pytest.raises(UserError, match="jx_vit_base"):
        check_before(contenders, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["OUTPUT_DIR", "MODEL.WEIGHTS"])
def test_what_each_training_has_of_its_own_is_refused(key):
    with pytest.raises(UserError, match=f"{key} is each training's own"):
        read_contenders(SDREID[:1], [key, "x"])


@pytest.mark.parametrize(
    "setting", ["MODEL: {SEED: 3}", "TEST: {RERANK: {ENABLED: True}}", "TEST: {METRIC: euclidean}"]
)
def test_methods_are_scored_in_one_way_and_have_the_same_seeds(tmp_path, setting):
    mine = tmp_path / "mine.yml"
    mine.write_text(f"_BASE_: {SDREID[0]}\n{setting}\n")
    with pytest.raises(UserError, match="cannot be compared"):
        read_contenders([SDREID[0], str(mine)], [])


def test_a_folder_of_other_settings_is_refused(tmp_path):
    (training,) = plan_trainings(read_contenders(SDREID[:1], []), 1, tmp_path)
    training.folder.mkdir(parents=True)
    training.planned.write_text(training.config().dump())
    plan_trainings(read_contenders(SDREID[:1], []), 1, tmp_path)
    plan_trainings(read_contenders(SDREID[:1], ["MODEL.DEVICE", "cpu"]), 1, tmp_path)
    for key, value in (
        ("SOLVER.BASE_LR", "0.1"),
        ("TEST.AQE.ENABLED", "True"),
        ("DATASETS.TESTS", "['CARGO']"),
    ):
        with pytest.raises(UserError, match=f"was planned with other settings: {key} "):
            plan_trainings(read_contenders(SDREID[:1], [key, value]), 1, tmp_path)
