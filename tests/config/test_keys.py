"""What is said of a key in one place: default, meaning, range, and what depends on it."""

import pytest

from fastreid.config import FRACTION, POSITIVE, Changes, Key, Range, Registered, check_config, choice, get_cfg
from fastreid.config.files import flat_keys
from fastreid.utils.errors import UserError
from fastreid.utils.registry import Registry


@pytest.fixture(scope="module", params=["SDReIDStage1", "SDReIDStage2"])
def cfg(request):
    """The defaults of a method."""
    cfg = get_cfg()
    cfg.use_method(request.param)
    return cfg


def test_every_key_has_a_meaning_and_a_default_that_it_accepts(cfg):
    assert set(cfg.declared) == set(flat_keys(cfg))
    for name, key in cfg.declared.items():
        assert key.meaning.strip(), name
        assert "\n" not in key.meaning, name
        key.check(name, key.default)
    check_config(cfg)


def test_every_list_knows_the_type_of_its_elements(cfg):
    for name, key in cfg.declared.items():
        if isinstance(key.default, list):
            assert key.element or {type(item) for item in key.default} == {type(key.default[0])}, name


def refused(key: Key, value: object) -> str:
    try:
        key.check("A.KEY", value)
    except UserError as error:
        return str(error)
    return ""


def test_a_range_is_what_passes_its_test():
    assert refused(Key(1, "", POSITIVE), 0) == "A.KEY is 0; it must be greater than 0, and less than 2^31"
    assert not refused(Key(1, "", POSITIVE), 1)
    assert refused(Key(0.5, "", FRACTION), float("nan")) == "A.KEY is nan; it must be finite"
    even = Range(lambda value: value % 2 == 0, "even")
    assert refused(Key([2, 4], "", even), [2, 3]) == "A.KEY is [2, 3]; it must be even"


def test_a_choice_is_one_of_its_words_and_the_nearest_is_suggested():
    key = Key("bf16", "", choice("bf16", "fp16"))
    assert not refused(key, "fp16")
    assert refused(key, "fp17") == "A.KEY is 'fp17'; allowed: bf16, fp16. Did you mean 'fp16'?"


def test_lists_have_their_length_and_the_type_of_their_elements():
    key = Key([1, 1], "", POSITIVE, length=2)
    assert refused(key, [1]) == "A.KEY is [1]; expected 2 numbers"
    assert "expected a list of int, found str 'x'" in refused(key, [1, "x"])
    assert "expected a list of str, found int 3" in refused(Key([], "", element=str), [3])


def test_a_registered_name_is_asked_of_its_registry(own_names):
    names = Registry("colour", "TOY.COLOUR")
    names.register("red", object())
    own, of_another = Registered("fastreid.config"), Registered("fastreid.config", "TOY.COLOUR")
    Key("red", "", own).check("TOY.COLOUR", "red")
    Key(["red"], "", of_another).check("A.KEY", ["red"])
    assert "unknown colour 'rad' in A.KEY. Did you mean 'red'?" in refused(Key("red", "", of_another), "rad")


REGISTERED = {
    "MODEL.META_ARCHITECTURE": "method",
    "MODEL.BACKBONE.NAME": "backbone",
    "MODEL.HEADS.NAME": "head",
    "MODEL.HEADS.CLS_LAYER": "classification layer",
    "MODEL.LOSSES.NAME": "loss",
    "SOLVER.OPT": "optimiser",
    "SOLVER.SCHED": "schedule",
    "DATALOADER.SAMPLER_TRAIN": "sampler",
    "DATASETS.NAMES": "dataset",
    "DATASETS.TESTS": "dataset",
    "TEST.METRIC": "metric",
    "MODEL.SDMODEL.SCHEDULER_CONFIG.NAME": "diffusion scheduler",
}


def test_every_kind_of_registered_name_has_a_key():
    declared = get_cfg().declared
    assert {name for name, key in declared.items() if isinstance(key.allowed, Registered)} == set(REGISTERED)


@pytest.mark.parametrize("key", REGISTERED)
def test_a_name_that_no_registry_knows_is_an_error_before_any_dataset_is_read(key, tmp_path):
    cfg = get_cfg()
    cfg.DATASETS.ROOT = str(tmp_path / "there is none")
    default = cfg.declared[key].default
    known = default[0] if isinstance(default, list) else default
    wrong = f"{known}x"

    def merge_and_check() -> None:
        cfg.merge_from_list([key, repr([wrong]) if isinstance(default, list) else wrong])
        check_config(cfg)

    with pytest.raises(UserError, match=f"{wrong!r}.*Did you mean {known!r}.*IMPORTS") as error:
        merge_and_check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "group",
    ["MODEL.BACKBONE.", "MODEL.HEADS.", "MODEL.SDMODEL.", "MODEL.PIXEL_", "TEST.AMP.", "TEST.SDMODEL."],
)
def test_features_depend_on_what_the_model_computes_with(group):
    """Not on where training started, on the number of identities, or on what computes the same otherwise."""
    other_ways = ("CACHE_FEATURES", "CHANNELS_LAST", "COMPILE", "GRADIENT_CHECKPOINTING")
    for name, key in get_cfg().declared.items():
        if name.startswith(group):
            expected = not any(part in name for part in ("PRETRAIN", "NUM_CLASSES", *other_ways))
            assert bool(key.changes & Changes.FEATURES) == expected, name


def test_beside_these_groups_four_keys_change_features():
    groups = (
        "MODEL.BACKBONE.",
        "MODEL.HEADS.",
        "MODEL.SDMODEL.",
        "MODEL.PIXEL_",
        "TEST.AMP.",
        "TEST.SDMODEL.",
    )
    found = {name for name, key in get_cfg().declared.items() if key.changes & Changes.FEATURES}
    assert {name for name in found if not name.startswith(groups)} == {
        "MODEL.META_ARCHITECTURE",
        "MODEL.SEED",
        "INPUT.SIZE_TEST",
        "TEST.FLIP.ENABLED",
    }
