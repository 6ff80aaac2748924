"""Configuration files, overrides, and the errors that name the key."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastreid.config import CfgNode, check_config, get_cfg
from fastreid.config.files import flat_keys
from fastreid.utils.errors import UserError


def test_a_file_changes_what_it_names_and_nothing_else(write):
    cfg = get_cfg()
    cfg.merge_from_file(write("a.yml", "SOLVER:\n  BASE_LR: 0.5\nOUTPUT_DIR: logs/x\n"))
    changed = {key for key, value in flat_keys(cfg).items() if value != flat_keys(get_cfg())[key]}
    assert changed == {"SOLVER.BASE_LR", "OUTPUT_DIR"}
    assert cfg.SOLVER.BASE_LR == 0.5


def test_bases_come_first_in_their_order_relative_to_the_file_that_names_them(write):
    write("common.yml", "SOLVER: {BASE_LR: 0.1, MAX_EPOCH: 1, GAMMA: 0.3}\n")
    write("sub/first.yml", "_BASE_: ../common.yml\nSOLVER: {MAX_EPOCH: 2, STEPS: [1]}\n")
    write("sub/second.yml", "SOLVER: {STEPS: [2, 3]}\n")
    top = write("top.yml", "_BASE_: [sub/first.yml, sub/second.yml]\nSOLVER: {GAMMA: 0.7}\n")
    cfg = get_cfg()
    cfg.merge_from_file(top)
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.MAX_EPOCH, solver.STEPS, solver.GAMMA) == (0.1, 2, [2, 3], 0.7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SOLVER: {BASE_LT: 1.0}", "unknown config key 'SOLVER.BASE_LT'.*'SOLVER.BASE_LR'"),
        ("SOLVAR: {BASE_LR: 1.0}", "'SOLVAR.BASE_LR'.*Did you mean 'SOLVER.BASE_LR'"),
        ("solver: {base_lr: 1.0}", "'solver.base_lr'.*Did you mean 'SOLVER.BASE_LR'"),
        ("SOLVAR: {}", "unknown config key 'SOLVAR'"),
        ("SOLVER.BASE_LR: 1.0", "'SOLVER.BASE_LR'.*one level for each part.*SOLVER: "),
        ("OUTPUT_DIR: 2024-13-45", "not valid YAML.*month"),
        ("SOLVER: 3", "'SOLVER'.*group of keys"),
        ("SOLVER: {BASE_LR: fast}", "'SOLVER.BASE_LR'.*expected float.*str 'fast'"),
        ("SOLVER: {MAX_EPOCH: 2.5}", "'SOLVER.MAX_EPOCH'.*expected int"),
        ("SOLVER: {MAX_EPOCH: true}", "'SOLVER.MAX_EPOCH'.*expected int.*bool True"),
        ("SOLVER: {NESTEROV: 1}", "'SOLVER.NESTEROV'.*expected bool"),
        ("SOLVER: {STEPS: 5}", "'SOLVER.STEPS'.*expected list"),
        ("SOLVER: {STEPS: [5, x]}", r"'SOLVER.STEPS\[1\]'.*expected int.*'x'"),
        ("OUTPUT_DIR: 7", "'OUTPUT_DIR'.*expected str"),
        ("OUTPUT_DIR:", "'OUTPUT_DIR'.*NoneType"),
        ("1: 2", "unknown config key '1'"),
        ("SOLVER: {BASE_LR: [", "not valid YAML"),
        ("- a\n- b", "expected KEY: VALUE lines, found a list"),
        ("_BASE_: none.yml", "not found: .*none.yml .named by _BASE_ of .*bad.yml"),
        ("_BASE_: 3", "_BASE_ is 3"),
        ("_BASE_: [3]", r"_BASE_ is \[3\]"),
        ("_BASE_: bad.yml", "cycle: .*bad.yml -> .*bad.yml"),
    ],
)
def test_a_bad_file_is_explained_in_one_line(text, said, write):
    path = write("bad.yml", text)
    with pytest.raises(UserError, match=said) as error:
        get_cfg().merge_from_file(path)
    assert "bad.yml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cycle_over_two_files_is_shown(write):
    write("b.yml", "_BASE_: a.yml\n")
    path = write("a.yml", "_BASE_: b.yml\n")
    with pytest.raises(UserError, match=r"a.yml -> .*b.yml -> .*a.yml"):
        get_cfg().merge_from_file(path)


def test_one_base_reached_on_two_ways_is_no_cycle(write):
    write("common.yml", "SOLVER: {MAX_EPOCH: 7}\n")
    write("left.yml", "_BASE_: common.yml\n")
    write("right.yml", "_BASE_: common.yml\n")
    cfg = get_cfg()
    cfg.merge_from_file(write("top.yml", "_BASE_: [left.yml, right.yml]\n"))
    assert cfg.SOLVER.MAX_EPOCH == 7


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(UserError, match="config file not found: .*none.yml"):
        get_cfg().merge_from_file(tmp_path / "none.yml")
    (tmp_path / "picture.yml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="not valid YAML"):
        get_cfg().merge_from_file(tmp_path / "picture.yml")


def test_command_line_pairs_take_the_type_of_the_key():
    cfg = get_cfg()
    pairs = {
        "SOLVER.BASE_LR": "1",
        "SOLVER.GAMMA": "1e-2",
        "SOLVER.STEPS": "(3, 4)",
        "SOLVER.NESTEROV": "True",
        "MODEL.PIXEL_MEAN": "[0, 1, 2.5]",
        "DATASETS.TESTS": "('CARGO_AG',)",
        "OUTPUT_DIR": "12",
    }
    cfg.merge_from_list([word for pair in pairs.items() for word in pair])
    assert (cfg.SOLVER.BASE_LR, type(cfg.SOLVER.BASE_LR)) == (1.0, float)
    assert cfg.SOLVER.STEPS == [3, 4]
    assert cfg.MODEL.PIXEL_MEAN == [0.0, 1.0, 2.5]
    assert all(type(value) is float for value in cfg.MODEL.PIXEL_MEAN)
    assert cfg.OUTPUT_DIR == "12"
    assert cfg.SOLVER.NESTEROV is True
    assert cfg.DATASETS.TESTS == ["CARGO_AG"]
    assert cfg.SOLVER.GAMMA == 0.01


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["SOLVER.BASE_LR"], "no value"),
        (["SOLVER.BASE_LR", "0.1", "SOLVER.GAMMA"], "'SOLVER.GAMMA' has no value"),
        (["SOLVER", "3"], "group of keys"),
        (["SOLVER.", "3"], "unknown config key 'SOLVER.'"),
        (["", "3"], "unknown config key ''"),
        (["SOLVER.BASE_LR.X", "3"], "SOLVER.BASE_LR"),
        (["DATASETS.TESTS", "CARGO"], r"expected list such as \['CARGO'\]"),
    ],
)
def test_bad_pairs_are_explained(options, said):
    with pytest.raises(UserError, match=said):
        get_cfg().merge_from_list(options)


def error_of_merging(cfg, options: list[str]) -> str:
    """The text of the UserError, empty if there was none; any other exception passes."""
    try:
        cfg.merge_from_list(options)
    except UserError as error:
        return str(error)
    return ""


@given(st.lists(st.text(max_size=12), min_size=1, max_size=6))
def test_keys_that_do_not_exist_are_explained(options):
    assert error_of_merging(get_cfg(), options)


LEAVES = sorted(flat_keys(get_cfg()))


@given(st.sampled_from(LEAVES), st.text(max_size=10))
def test_any_text_for_any_key_keeps_the_type_or_is_explained(key, text):
    cfg = get_cfg()
    before = flat_keys(cfg)[key]
    error = error_of_merging(cfg, [key, text])
    assert key in error if error else type(flat_keys(cfg)[key]) is type(before)


LITERALS = st.sampled_from(
    ["{[]: 1}", "{{}}", "-" * 5000 + "1", "1" + "0" * 400, "\0", "((((", "1e999", "None"]
)


@given(st.sampled_from(LEAVES), LITERALS)
def test_text_that_python_cannot_read_is_text(key, text):
    cfg = get_cfg()
    before = flat_keys(cfg)[key]
    error = error_of_merging(cfg, [key, text])
    assert key in error if error else type(flat_keys(cfg)[key]) is type(before)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.dates(),
)
NAMES = st.one_of(st.sampled_from(sorted({part for key in LEAVES for part in key.split(".")})), SCALARS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=3),
        st.tuples(inner),
        st.sets(SCALARS, max_size=2),
    ),
    max_leaves=8,
)


def nested(key: str, value: object) -> dict:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@given(
    st.one_of(
        st.dictionaries(NAMES, VALUES, max_size=4),
        st.builds(
            nested, st.sampled_from([*LEAVES, "MODEL", "MODEL.SDMODEL.MOEMNTUM", "INPUT.SWITCH"]), VALUES
        ),
    )
)
def test_whatever_is_merged_keeps_the_types_or_is_explained(values):
    """As a file gives it, or a checkpoint."""
    for merge in (CfgNode.merge_values, CfgNode.merge_stored):
        cfg = get_cfg()
        types = {key: type(value) for key, value in flat_keys(cfg).items()}
        with suppress(UserError):
            merge(cfg, values, "a file")
        assert {key: type(value) for key, value in flat_keys(cfg).items()} == types


def test_what_is_dumped_can_be_read_back(write):
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.STEPS", "[1, 2]", "SOLVER.BASE_LR", "3e-5", "OUTPUT_DIR", "1e3"])
    copy = get_cfg()
    copy.merge_from_file(write("dump.yml", cfg.dump()))
    assert flat_keys(copy) == flat_keys(cfg)


def test_copies_are_independent_and_a_frozen_config_stays_as_it_is():
    cfg = get_cfg()
    cfg.SOLVER.STEPS.append(99)
    assert get_cfg().SOLVER.STEPS != cfg.SOLVER.STEPS
    cfg.freeze()
    with pytest.raises(ValueError, match="frozen"):
        cfg.merge_from_list(["SOLVER.BASE_LR", "1"])


def test_the_defaults_are_allowed():
    check_config(get_cfg())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("SOLVER.OPT", "Adm", "unknown optimiser .*'Adam'.*Known: Adam, AdamW, SGD"),
        ("SOLVER.SCHED", "Cosine", "CosineAnnealingLR"),
        ("SOLVER.AMP.DTYPE", "fp8", "bf16, fp16"),
        ("TEST.METRIC", "cosin", "'cosine'"),
        ("MODEL.SDMODEL.TARGET", "other", "same_image, cross_view"),
        ("TEST.SDMODEL.PREDICTION", "x", "sample, mean"),
        ("TEST.SDMODEL.NOISE", "x", "common, per_image"),
        ("MODEL.SDMODEL.SCHEDULER_CONFIG.NAME", "dpm", "ddpm"),
        ("MODEL.LOSSES.NAME", "['TripletLos']", "'TripletLoss'"),
        ("SOLVER.IMS_PER_BATCH", "0", "greater than 0"),
        ("SOLVER.WARMUP_ITERS", "-1", "0 or more"),
        ("SOLVER.WARMUP_FACTOR", "1.5", "from 0 to 1"),
        ("INPUT.SIZE_TRAIN", "[256]", "expected 2 numbers"),
        ("INPUT.SIZE_TRAIN", "[256, -1]", "greater than 0"),
        ("MODEL.PIXEL_STD", "[1, 0, 1]", "greater than 0"),
        ("MODEL.SDMODEL.UNET_CONFIG.HEAD_DIM", "0", "greater than 0"),
        ("MODEL.SDMODEL.UNET_CONFIG.LAYERS_PER_BLOCK", "0", "greater than 0"),
        ("MODEL.SDMODEL.UNET_CONFIG.WIDTHS", "[32, -32]", "greater than 0"),
        ("MODEL.SEED", str(2**63), "from 0 to 9223372036854775807"),
        ("MODEL.LOSSES.CE.EPSILON", "1.5", "at most 1"),
        ("TEST.SDMODEL.NUM_INFERENCE_STEPS", "1001", "at most MODEL.SDMODEL.TRAIN_STEP 1000"),
        ("MODEL.FREEZE_LAYERS", "[1]", "list of str, found int 1"),
        ("MODEL.SDMODEL.VRD_CONFIG.KERNEL_SIZES", "[2.5, 4, 8]", "list of int, found float 2.5"),
        ("SOLVER.IMS_PER_BATCH", "6", "IMS_PER_BATCH is 6.*NUM_INSTANCE 4.*multiple of 4"),
    ],
)
def test_values_that_are_not_allowed_are_named_with_what_is(key, value, said):
    cfg = get_cfg()
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=f"{key}.*{said}|{said}"):
        check_config(cfg)


def test_the_elements_of_a_list_that_was_empty_are_checked_too():
    cfg = get_cfg()
    key = "MODEL.SDMODEL.UNET_CONFIG.TRAINABLE_BLOCK_IDX"
    cfg.merge_from_list([key, "[]", key, "['a']"])
    with pytest.raises(UserError, match=f"{key} is .*list of int, found str 'a'"):
        check_config(cfg)


def test_the_batch_must_divide_over_processes_for_training_only():
    cfg = get_cfg()
    cfg.SOLVER.IMS_PER_BATCH = 8
    check_config(cfg, world_size=2)
    with pytest.raises(UserError, match="4 process.*multiple of 16"):
        check_config(cfg, world_size=4)
    check_config(cfg, world_size=4, training=False)
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    check_config(cfg, world_size=4)


def test_a_base_may_be_a_shipped_file_from_every_folder(tmp_path, monkeypatch):
    (tmp_path / "own.yml").write_text("_BASE_: configs/demo/base_stage1.yml\nOUTPUT_DIR: here\n")
    monkeypatch.chdir(tmp_path)
    cfg = get_cfg()
    cfg.merge_from_file("own.yml")
    assert (cfg.MODEL.BACKBONE.FEAT_DIM, cfg.OUTPUT_DIR) == (128, "here")
