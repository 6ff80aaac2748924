"""Configuration files and overrides that anybody may have written: a checked configuration, or one error."""

import json
import math

import pytest
import yaml
from hostile import NUMBERS, TEXTS, fuzz, refused, values
from hypothesis import given
from hypothesis import strategies as st

from fastreid.config import check_config, get_cfg, load_config
from fastreid.config.files import flat_keys, nested
from fastreid.engine import default_argument_parser, setup_config
from fastreid.utils.documents import parse_json, parse_yaml
from fastreid.utils.errors import UserError

KEYS = sorted(set(get_cfg().declared) - {"IMPORTS"})  # to import is to run what is named
SHIPPED = get_cfg().dump()
PIECES = [
    "MODEL:",
    "SOLVER:",
    "_BASE_:",
    "IMPORTS:",
    "\n",
    "\n  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "<<: ",
]
PIECES += [
    "!!int ",
    "!!python/object:os.x ",
    "!!timestamp ",
    "!!bool ",
    "!!set ",
    "? ",
    ": ",
    '"\\0"',
    "9" * 30,
    "'",
]
PIECES += [
    "=",
    "1:59:59",
    "0x",
    ".nan",
    "-.inf",
    "~",
    "---\n",
    "...",
    "#",
    "|\n",
    "\t",
    "\ufeff",
    "é",
    "BASE_LR: ",
]


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """`setup(content, option, …)`: the start of a training by a file of that content."""
    monkeypatch.chdir(tmp_path)

    def run(content: bytes, *options: str):
        (tmp_path / "some.yml").write_bytes(content)
        args = default_argument_parser().parse_args(["--config-file", "some.yml"])
        args.opts = list(options)
        return setup_config(args)

    return run


@fuzz
@given(pieces=st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=25))
def test_pieces_of_yaml_are_a_configuration_or_one_error(setup, pieces):
    refused(lambda: setup("".join(pieces).encode("utf-8", "surrogatepass")))


@fuzz
@given(
    place=st.integers(0, len(SHIPPED)), cut=st.integers(0, 12), inserted=st.sampled_from(PIECES) | st.binary()
)
def test_a_damaged_file_is_a_configuration_or_one_error(setup, place, cut, inserted):
    inserted = inserted.encode() if isinstance(inserted, str) else inserted
    refused(lambda: setup(SHIPPED[:place].encode() + inserted + SHIPPED[place + cut :].encode()))


@fuzz
@given(key=st.sampled_from(KEYS), value=values)
def test_any_value_of_any_key_is_read_as_its_type_or_refused(key, value):
    cfg = get_cfg()

    def read() -> None:
        text = yaml.safe_dump(nested(key, value), allow_unicode=False)
        cfg.merge_values(parsed(text), "some.yml")
        check_config(cfg)

    if not refused(read):
        found, default = flat_keys(cfg)[key], cfg.declared[key].default
        assert type(found) is type(default)
        assert all(math.isfinite(item) for item in listed(found) if isinstance(item, float))
        again = get_cfg()
        again.merge_values(parsed(cfg.dump()), "again.yml")
        assert again == cfg


@fuzz
@given(key=st.sampled_from(KEYS), text=st.sampled_from([*TEXTS, *map(str, NUMBERS)]) | st.text(max_size=9))
def test_any_text_of_any_key_on_the_command_line(setup, key, text):
    refused(lambda: setup(b"", key, text))


def parsed(text: str):
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise UserError(str(error)) from error


def listed(value):
    return value if isinstance(value, list) else [value]


# -------------------------------------------------------------- what fuzzing alone would take long to find
BOMB = "\n".join([*(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))])
FILES = {
    "holds itself": ("a: &a [*a]", "line 1: a value that holds itself"),
    "alias bomb": (f"a0: &a0 [x]\n{BOMB}", "more than 20000 values"),
    "merge bomb": (f"a0: &a0 {{k: 1}}\n{BOMB.replace('[', '{<<: [').replace(']', ']}')}", "more than 20000"),
    "deep lists": ("a: " + "[" * 90_000, "nests too deeply"),
    "deep groups": ("\n".join(" " * depth + "a:" for depth in range(400)), "nests too deeply"),
    "long number": ("a: " + "9" * 5000, "a number of 5000 characters"),
    "sexagesimal number": ("a: 1" + ":59" * 30_000, "a number of 90001 characters"),
    "beyond 64 bits": ("SOLVER: {MAX_EPOCH: 18446744073709551616}", "65 bits, and 64 are the most"),
    "NUL": ('OUTPUT_DIR: "a\\0b"', "NUL character"),
    "too large": ("#" * 200_000, "200000 characters, more than 100000"),
    "long base": (f"_BASE_: {'x' * 5000}", "too long for a path: 5000 bytes"),
    "tag that does not suit": ("a: !!timestamp x", "not valid YAML"),
    "infinite": ("SOLVER: {BASE_LR: .inf}", "SOLVER.BASE_LR is inf; it must be finite"),
    "infinite in a list": ("MODEL: {PIXEL_MEAN: [1.0, .nan, 1.0]}", "PIXEL_MEAN.*it must be finite"),
    "no range": ("MODEL: {HEADS: {MARGIN: .nan}}", "MODEL.HEADS.MARGIN is nan; it must be finite"),
    "long path": (f"OUTPUT_DIR: {'x' * 300}", "OUTPUT_DIR is too long for a path: 300 bytes.*255"),
    "no path": ('MODEL: {WEIGHTS: "\\ud800"}', "MODEL.WEIGHTS .*is no path"),
    "huge count": ("MODEL: {BACKBONE: {FEAT_DIM: 4611686018427387904}}", "FEAT_DIM is 4611.*less than 2.31"),
    "endless layers": ("MODEL: {BACKBONE: {NUM_LAYERS: 2147483647}}", "NUM_LAYERS.*from 1 to 1000"),
    "no choice": ("MODEL: {BACKBONE: {LAST_STRIDE: 7}}", "LAST_STRIDE is 7; allowed: 1, 2"),
}


@pytest.mark.parametrize(("content", "said"), FILES.values(), ids=FILES)
def test_a_file_made_to_harm_is_one_error(setup, content, said):
    with pytest.raises(UserError, match=said):
        setup(content.encode())


def test_a_number_too_long_to_be_shown_on_the_command_line():
    with pytest.raises(UserError, match="SOLVER.MAX_EPOCH.*expected int"):
        load_config("", ["SOLVER.MAX_EPOCH", "0x" + "f" * 9000])


def test_aliases_and_merged_keys_of_an_honest_file_still_work():
    values = parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]")
    assert values == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}] * 2}


@fuzz
@given(values=values)
def test_yaml_is_what_pyyaml_reads(values):
    text = yaml.safe_dump(values)
    try:
        parsed = repr(parse_yaml(text))
    except ValueError as error:
        said = str(error)
    else:
        said, expected = "", repr(yaml.safe_load(text))
        assert parsed == expected
    assert not said or any(words in said for words in ("64 are the most", "NUL", "a number of"))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 900 + "1" + "}" * 900, "1" + "0" * 40, '"\\u0000"']
)
def test_json_that_nests_deeply_or_is_beyond_64_bits_is_a_value_error(text):
    with pytest.raises(ValueError, match="nests too deeply|64 are the most|NUL"):
        parse_json(text)
    assert parse_json(json.dumps({"a": [1, 2.5, None]})) == {"a": [1, 2.5, None]}
