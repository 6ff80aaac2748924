"""Everything of a report but its rank lists: estimates, curves and tables."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from fastreid.data import ReIDDataset
from fastreid.data.datasets.base import joint_view_names
from fastreid.structures import Table
from fastreid.visualization.charts import (
    Chart,
    camera_table,
    change_chart,
    cmc_chart,
    cut_table,
    map_chart,
    precision_recall_chart,
    view_table,
)
from fastreid.visualization.generated import rate_table
from fastreid.visualization.intervals import ProtocolResults, protocol_results
from fastreid.visualization.run_summary import RunSummary
from fastreid.visualization.training_curves import training_charts

PLACES = ("OUTPUT_DIR", "MODEL.WEIGHTS")  # settings that differ between any two runs
NOT_THERE = "\N{EN DASH}"
MOST_LINES = 60  # rows, and columns, of a table
MOST_CELLS = 50_000  # of all tables together, about half of what a page may hold


class SettingChange(NamedTuple):
    """A setting that two runs have not in common."""

    key: str
    values: tuple[str, str]


class Figures(NamedTuple):
    """The estimates, curves and tables of a report."""

    results: dict[str, ProtocolResults]  # by protocol
    curves: list[Chart]  # two for each protocol
    changes: list[Chart]  # one for each protocol, with two runs
    cameras: list[Table]  # one for each protocol
    generated: dict[str, list[Table]]  # by protocol, one for each run that generates features of views
    at_equal_terms: list[Table]  # one for each run that was evaluated so
    tables: list[Table]  # that the methods add
    maps: list[Chart]  # one for each run
    training: list[Chart]  # of the runs that left a record
    settings: list[SettingChange]  # of two runs

    @property
    def charts(self) -> list[Chart]:
        return [*self.curves, *self.changes, *self.maps, *self.training]

    @property
    def every_table(self) -> list[Table]:
        return [*self.cameras, *chain(*self.generated.values()), *self.at_equal_terms, *self.tables]


def build_figures(datasets: Sequence[ReIDDataset], runs: Sequence[RunSummary]) -> Figures:
    """Draw everything but the rank lists, of one or two runs."""
    names = [dataset.name for dataset in datasets]
    views, most = joint_view_names(datasets), _lines_of_a_table(datasets, runs)
    return Figures(
        results={dataset.name: protocol_results(dataset, runs) for dataset in datasets},
        curves=[draw(name, runs) for name in names for draw in (cmc_chart, precision_recall_chart)],
        changes=[change_chart(name, runs) for name in names] if len(runs) > 1 else [],
        cameras=[camera_table(dataset, runs, most) for dataset in datasets],
        generated={dataset.name: _rates(dataset, runs, most) for dataset in datasets},
        at_equal_terms=[cut_table(view_table(datasets, run, views), most) for run in runs if run.distractors],
        tables=[cut_table(table, most) for table in _method_tables(runs)],
        maps=[map_chart(run.name, run.feature_map, datasets) for run in runs],
        training=[chart for run in runs for chart in training_charts(run)],
        settings=_setting_changes(*runs) if len(runs) > 1 else [],
    )


def _lines_of_a_table(datasets: Sequence[ReIDDataset], runs: Sequence[RunSummary]) -> int:
    """Return how many rows, and columns, each table may have for all to hold `MOST_CELLS` at most."""
    tables = len(datasets) + sum(len(datasets) + 1 + len(run.tables) for run in runs)
    return max(1, min(MOST_LINES, math.isqrt(MOST_CELLS // tables)))


def _rates(dataset: ReIDDataset, runs: Sequence[RunSummary], most: int) -> list[Table]:
    found = [(run.name, run.protocols[dataset.name].generated) for run in runs]
    return [cut_table(rate_table(dataset, views, name), most) for name, views in found if views]


def _setting_changes(first: RunSummary, second: RunSummary) -> list[SettingChange]:
    """Return the settings of two runs that differ, those first that both have; places are left out."""
    keys = dict.fromkeys([*first.settings, *second.settings])
    pairs = [(key, *(run.settings.get(key, NOT_THERE) for run in (first, second))) for key in keys]
    changes = [SettingChange(key, (a, b)) for key, a, b in pairs if a != b and key not in PLACES]
    return sorted(changes, key=lambda change: NOT_THERE in change.values)


def _method_tables(runs: Sequence[RunSummary]) -> list[Table]:
    """Return the runs' own tables, each named by its run; where two runs have the same one, the first's."""
    shown: list[tuple[str, Table]] = []
    for run in runs:
        known = [table for _, table in shown]
        shown += [(run.name, new) for new in run.tables if not any(_same(new, old) for old in known)]
    return [replace(table, name=f"{table.name}_{run}", title=f"{table.title}, {run}") for run, table in shown]


def _same(first: Table, second: Table) -> bool:
    """Tell whether tables have the same content, but for the rounding of float32."""
    values = [np.array(table.values, np.float64) for table in (first, second)]
    alike = values[0].shape == values[1].shape and np.allclose(*values, atol=1e-6, equal_nan=True)
    return bool(alike) and replace(first, values=[]) == replace(second, values=[])
