"""The shipped configurations have the release's settings, as docs/reference_release.md lists them."""

import ast
import fnmatch
import re
from typing import Any, NamedTuple

import pytest
from worlds.options import REPO

from fastreid.config import load_config

CONFIGS = REPO / "configs"
SHIPPED = sorted(
    str(path.relative_to(CONFIGS))
    for folder in ("v1", "v2", "CARGO", "LAGPeR", "G2APS_ReID")
    for path in (CONFIGS / folder).glob("base_*.yml")
)


class Row(NamedTuple):
    key: str
    pattern: str
    release: str
    ours: str
    why: str


def table() -> list[Row]:
    """The rows of the table of settings."""
    page = (REPO / "docs" / "reference_release.md").read_text()
    section = page.split("## Settings")[1].split("What the code does")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [Row(*(cell.strip().strip("`") for cell in line.strip("|").split("|"))) for line in lines]


def expected(config: str) -> dict[str, Any]:
    """Our value of each setting for a configuration: of the last row that concerns it."""
    rows = [row for row in table() if fnmatch.fnmatchcase(config, row.pattern)]
    return {row.key: ast.literal_eval(row.ours or row.release) for row in rows}


def value_of(cfg, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


@pytest.mark.parametrize("config", SHIPPED)
def test_a_shipped_configuration_has_the_settings_of_the_table(config):
    cfg, settings = load_config(CONFIGS / config), expected(config)
    assert {key: value_of(cfg, key) for key in settings} == settings
    assert len(settings) > 30


def test_the_table_concerns_twelve_configurations_and_each_row_at_least_one():
    assert len(SHIPPED) == 12
    for row in table():
        assert fnmatch.filter(SHIPPED, row.pattern), row


def test_where_ours_is_other_the_table_says_why():
    others = [row for row in table() if row.ours]
    assert all(row.why and row.ours != row.release for row in others)
    assert {row.key for row in others} == {
        "INPUT.SIZE_TRAIN",
        "SOLVER.SCHED",
        "SOLVER.AMP.DTYPE",
        "CUDNN_BENCHMARK",
    }


def test_the_lines_that_were_once_other_are_there():
    release = {(row.key, row.pattern): row.release for row in table()}
    assert release["MODEL.LOSSES.CE.VIEW_LAMBDA", "*/base_*"] == "0.001"
    assert release["MODEL.LOSSES.CE.VIEW_LAMBDA", "G2APS_ReID/base_stage?.yml"] == "1.0"
    assert release["MODEL.SDMODEL.U_COND_PERCENT", "*/base_*"] == "0.05"
    assert release["TEST.IMS_PER_BATCH", "LAGPeR/base_stage2*"] == "384"
    assert re.fullmatch(r"\[123\.675, 116\.28, 103\.53\]", release["INPUT.REA.VALUE", "*/base_stage1*"])
