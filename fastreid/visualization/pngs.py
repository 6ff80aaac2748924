"""Everything of a report that is a picture, as PNG files."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from fastreid.data import ReIDDataset
from fastreid.visualization.chart_png import save_chart, save_table
from fastreid.visualization.figures import Figures
from fastreid.visualization.rank_sheet import save_rank_sheet
from fastreid.visualization.run_summary import RunSummary
from fastreid.visualization.selection import spread_by_precision

SHEET_QUERIES = 8  # lines of a sheet of rank lists
LONGEST_NAME = 200  # characters; file systems take about 255


def write_pngs(
    folder: str | Path, datasets: Sequence[ReIDDataset], run: RunSummary, figures: Figures
) -> list[Path]:
    """Write every chart and table, and for each protocol the run's rank lists of queries from bad to good.

    Returns:
        The files, named by their content; of names that differ in other characters than letters and digits
        alone the further ones are numbered.

    Raises:
        UserError: if a picture cannot be read, or a file not written.
    """
    written: list[Path] = []

    def place(name: str) -> Path:
        plain = re.sub(r"[^a-zA-Z0-9_-]+", "_", name)[:LONGEST_NAME]
        names = itertools.chain([plain], (f"{plain}_{number}" for number in itertools.count(2)))
        paths = (Path(folder) / f"{each}.png" for each in names)
        written.append(next(path for path in paths if path not in written))
        return written[-1]

    for chart in figures.charts:
        save_chart(chart, place(chart.name))
    for table in figures.every_table:
        save_table(table, place(table.name))
    for dataset in datasets:
        summary = run.protocols[dataset.name]
        queries = spread_by_precision(summary.scores.ap, SHEET_QUERIES)
        save_rank_sheet(dataset, summary, queries, place(f"rank_lists_{dataset.name}"))
    return written
