"""Configuration files of the reference release load, and say what became of its names."""

import logging

import pytest

from fastreid.config import get_cfg
from fastreid.utils.errors import UserError

# Ours, and its views; 0: as many as the data has.
ARCHITECTURES = {
    "Baseline_stage1": ("SDReIDStage1", 0),
    "Baseline_stage1_3view": ("SDReIDStage1", 3),
    "Baseline_stage2_old": ("SDReIDStage2AsReleased", 0),
    "Baseline_stage2_old_3view_2": ("SDReIDStage2AsReleased", 3),
}


@pytest.fixture
def load(tmp_path, caplog, monkeypatch):
    """Merges the text of a file; gives the configuration and the warnings."""
    monkeypatch.setattr(logging.getLogger("fastreid"), "propagate", True)

    def merge(text: str, name: str = "theirs.yml"):
        (tmp_path / name).write_text(text)
        cfg = get_cfg()
        cfg.merge_from_file(tmp_path / name)
        return cfg, [record.getMessage() for record in caplog.records]

    return merge


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_are_ours_with_their_number_of_views(load, name):
    cfg, warnings = load(f"MODEL: {{META_ARCHITECTURE: {name}}}")
    assert (cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.SDMODEL.VIEW_NUM) == ARCHITECTURES[name]
    assert len(warnings) == 1
    assert f"META_ARCHITECTURE {name} is {ARCHITECTURES[name][0]} here" in warnings[0]
    assert "theirs.yml" in warnings[0]


@pytest.mark.parametrize("order", ["STEPS: [30], DECAY_EPOCHS: [50]", "DECAY_EPOCHS: [50], STEPS: [30]"])
def test_where_a_file_has_our_name_as_well_the_releases_is_the_one_that_its_code_reads(load, order):
    cfg, warnings = load(f"{{MODEL: {{META_ARCHITECTURE: Baseline_stage2_old}}, SOLVER: {{{order}}}}}")
    assert cfg.SOLVER.STEPS == [50]
    assert any("SOLVER.STEPS [30] is ignored: there SOLVER.DECAY_EPOCHS says it" in w for w in warnings)


def test_every_name_is_mapped_or_ignored_with_one_warning(load):
    cfg, warnings = load("""
        MODEL:
          META_ARCHITECTURE: Baseline_stage2_old_3view_2
          N_CTX: 4
          BACKBONE: {NAME: build_vit_prompt, DEPTH: small, FEAT_DIM: 384, WITH_SE: False, WITH_IBN: False}
          SDMODEL:
            MOEMNTUM: 0.7
            CON_LEARNER_CONFIG: {DEPTH: 2, SWITCH: 2, SWITCH2: 1, CTX_DIM: 768}
        INPUT: {AUTOAUG: {ENABLED: False, PROB: 0.1}}
        SOLVER: {BASE_LR: 3e-4}
        """)
    assert cfg.MODEL.BACKBONE.NAME == "build_vit_backbone"
    assert cfg.MODEL.SDMODEL.MOMENTUM == 0.7
    assert (cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.FEAT_DIM) == ("small", 384)
    assert (cfg.MODEL.SDMODEL.CON_LEARNER_CONFIG.DEPTH, cfg.SOLVER.BASE_LR) == (2, 3e-4)
    told = ["META_ARCHITECTURE", "N_CTX", "NAME", "WITH_SE", "WITH_IBN", "MOEMNTUM", "CTX_DIM"]
    told.append("INPUT.AUTOAUG")
    assert len(warnings) == len(told)
    for name, warning in zip(told, warnings, strict=True):
        assert name in warning


def test_the_decay_of_its_multi_step_schedule_is_ours(load):
    cfg, warnings = load("""
        MODEL: {META_ARCHITECTURE: Baseline_stage2_old}
        SOLVER: {DECAY_RATE: 0.2, DECAY_EPOCHS: [40, 70]}
        """)
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.GAMMA) == ([40, 70], 0.2)
    told = ["META_ARCHITECTURE", "DECAY_RATE is SOLVER.GAMMA", "DECAY_EPOCHS is SOLVER.STEPS"]
    assert len(warnings) == len(told)
    for name, warning in zip(told, warnings, strict=True):
        assert name in warning


def test_the_files_own_number_of_views_stays(load):
    cfg, _ = load("MODEL: {META_ARCHITECTURE: Baseline_stage1_3view, SDMODEL: {VIEW_NUM: 4}}")
    assert cfg.MODEL.SDMODEL.VIEW_NUM == 4


def test_bases_are_translated_together_with_the_file_that_names_them(load):
    load("INPUT: {RPT: {ENABLED: False}}\nMODEL: {SDMODEL: {MOEMNTUM: 0.6}}", "Base.yml")
    cfg, _ = load("_BASE_: Base.yml\nMODEL: {META_ARCHITECTURE: Baseline_stage1}")
    assert cfg.MODEL.SDMODEL.MOMENTUM == 0.6


def test_the_command_line_takes_the_names_too(load):
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.SDMODEL.MOEMNTUM", "0.5", "MODEL.META_ARCHITECTURE", "Baseline_stage2_old"])
    assert (cfg.MODEL.SDMODEL.MOMENTUM, cfg.MODEL.META_ARCHITECTURE) == (0.5, "SDReIDStage2AsReleased")


def test_a_wrong_value_is_an_error_in_their_files_too(load):
    with pytest.raises(UserError, match="'MODEL.SDMODEL.MOMENTUM' .*expected float"):
        load("MODEL: {SDMODEL: {MOEMNTUM: high}}")


def test_a_malformed_file_of_theirs_is_explained_too(load):
    with pytest.raises(UserError, match="'MODEL.SDMODEL' .*group of keys"):
        load("MODEL: {META_ARCHITECTURE: Baseline_stage1_3view, SDMODEL: }")
    _, warnings = load("MODEL: {SDMODEL.N_CTX: 1}")
    assert "MODEL.SDMODEL.N_CTX 1 is ignored" in warnings[-1]


@pytest.mark.parametrize(
    "text",
    [
        "MODEL: {SDMODEL: {CON_LEARNER_CONFIG: {SWITCH: 1}}}",
        "MODEL: {SDMODEL: {CON_LEARNER_CONFIG: {SWITCH2: 4}}}",
        "TEST: {SDMODEL: {INVERSE_TYPE: full}}",
        "SOLVER: {OVERRIDE_LR: 0.001}",
    ],
)
def test_a_choice_of_its_code_that_is_not_here_is_an_error(load, text):
    with pytest.raises(UserError, match="chooses code of it that is not"):
        load(text)


def test_the_choices_of_its_own_configurations_are_taken_in_silence(load):
    _, warnings = load("""
        MODEL: {SDMODEL: {CON_LEARNER_CONFIG: {SWITCH: 2, SWITCH2: 1}}}
        TEST: {SDMODEL: {INVERSE_TYPE: uc_full}}
        SOLVER: {OVERRIDE_LR: 0.}
        """)
    assert warnings == []


def test_its_period_of_checkpoints_is_not_ours(load):
    cfg, warnings = load("MODEL: {META_ARCHITECTURE: Baseline_stage1}\nSOLVER: {CHECKPOINT_PERIOD: 5}")
    assert cfg.SOLVER.CHECKPOINT_PERIOD == 20
    assert "SOLVER.CHECKPOINT_PERIOD 5 is ignored" in warnings[-1]
    assert load("SOLVER: {CHECKPOINT_PERIOD: 5}", "ours.yml")[0].SOLVER.CHECKPOINT_PERIOD == 5


def test_in_our_files_an_unknown_key_stays_an_error(load):
    with pytest.raises(UserError, match="unknown config key 'MODEL.BACKBONE.WITH_SE'"):
        load("MODEL: {BACKBONE: {WITH_SE: True}}")
    with pytest.raises(UserError, match="unknown config key 'SOLVER.SWITCH'"):
        load("SOLVER: {SWITCH: True}")


def test_the_bases_of_its_files_are_its_own_too(tmp_path):
    base = "MODEL: {META_ARCHITECTURE: Baseline, BACKBONE: {WITH_IBN: True}}\nSOLVER: {BASE_LR: 0.5}\n"
    (tmp_path / "Base.yml").write_text(base)
    (tmp_path / "top.yml").write_text("_BASE_: Base.yml\nMODEL: {META_ARCHITECTURE: Baseline_stage1}\n")
    cfg = get_cfg()
    cfg.merge_from_file(tmp_path / "top.yml")
    assert (cfg.MODEL.META_ARCHITECTURE, cfg.SOLVER.BASE_LR) == ("SDReIDStage1", 0.5)
