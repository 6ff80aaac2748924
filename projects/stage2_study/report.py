"""The study's results as a table and a plot."""

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from matplotlib.figure import Figure
from tabulate import tabulate

from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, write_json
from projects.stage2_study.settings import SETTINGS

STAGE1 = "Stage 1"
Row = tuple[str, str]  # setting, retrieval


def write_report(output: Path) -> None:
    """Read all finished trials below `output`; write results.json, table.md and gains.png there.

    Raises:
        UserError: if no trial is finished.
    """
    trials = [json.loads(path.read_text()) for path in sorted(output.glob("*/*/results/*.json"))]
    if not trials:
        raise UserError(f"{output}: no finished trial yet", "run the study without --report-only")
    order = [(setting.name, retrieval.name) for setting in SETTINGS for retrieval in setting.retrievals]
    places = {row: place for place, row in enumerate(order)}
    trials.sort(key=lambda trial: places.get((trial["setting"], trial["retrieval"]), len(places)))
    write_json(output / "results.json", trials)
    most = max(trial["identities"] for trial in trials)
    main = [trial for trial in trials if trial["identities"] == most]
    text = "\n\n".join(filter(None, [_layout_tables(main), _identity_table(trials)]))
    with atomic_write(output / "table.md", "w") as file:
        file.write(text + "\n")
    _draw(main, output / "gains.png")
    print(text)


def chosen_way(trials: list[dict]) -> str:
    """Return the weight to join with: the one with the highest mean mAP on held-out identities."""
    ways = [way for way in trials[0]["mAP"]["held out"] if way.startswith("weight")]
    return max(ways, key=lambda way: statistics.mean(_gain(trial, "held out", way) for trial in trials))


def _gain(trial: dict, split: str, way: str, protocols: Iterable[str] = ()) -> float:
    """Return the mean over protocols, by default all, of the mAP over Stage 1's, in points."""
    scores = trial["mAP"][split]
    return statistics.mean(scores[way][name] - scores[STAGE1][name] for name in protocols or scores[STAGE1])


def _groups(trials: list[dict]) -> dict[Row, list[dict]]:
    groups: dict[Row, list[dict]] = defaultdict(list)
    for trial in trials:
        groups[trial["setting"], trial["retrieval"]].append(trial)
    return groups


def _layout_tables(trials: list[dict]) -> str:
    """Tabulate, for each layout, the mAP of Stage 1 and what every row adds on each test protocol."""
    parts = []
    for layout in sorted({trial["layout"] for trial in trials}, reverse=True):
        own = [trial for trial in trials if trial["layout"] == layout]
        protocols = list(own[0]["mAP"]["test"][STAGE1])
        seeds = len({trial["seed"] for trial in own})
        rows = [[STAGE1, "", "", *_stage1(own), "", seeds]]
        for (setting, retrieval), group in _groups(own).items():
            rows += _rows(setting, retrieval, group, protocols)
        headers = ["setting", "retrieval", "joined", *protocols, "mean", "seeds"]
        parts.append(_table(f"{layout}, mAP over Stage 1", rows, headers))
    return "\n\n".join(parts)


def _stage1(trials: list[dict]) -> list[str]:
    """Return Stage 1's mAP on each test protocol, the mean over seeds."""
    by_seed = {trial["seed"]: trial["mAP"]["test"][STAGE1].values() for trial in trials}
    return [f"{statistics.mean(scores):.1f}" for scores in zip(*by_seed.values(), strict=True)]


def _rows(setting: str, retrieval: str, group: list[dict], protocols: list[str]) -> list[list]:
    ways = [chosen_way(group)]
    if setting.startswith("paper"):
        ways = ["as published", "constant", *ways]
    return [
        [
            setting,
            retrieval,
            way,
            *(_points(group, way, [name]) for name in protocols),
            _points(group, way),
            len(group),
        ]
        for way in ways
    ]


def _points(group: list[dict], way: str, protocols: Iterable[str] = ()) -> str:
    """Return the mean gain on the test identities, and its deviation over seeds where there are several."""
    gains = [_gain(trial, "test", way, protocols) for trial in group]
    spread = f" ± {statistics.stdev(gains):.1f}" if len(gains) > 1 else ""
    return f"{statistics.mean(gains):+.1f}{spread}"


def _identity_table(trials: list[dict]) -> str:
    """Tabulate what the rows that were trained on several numbers of identities add, by their number."""
    counts = sorted({trial["identities"] for trial in trials})
    if len(counts) == 1:
        return ""
    rows = []
    for layout in sorted({trial["layout"] for trial in trials if trial["identities"] != counts[-1]}):
        own = [trial for trial in trials if trial["layout"] == layout]
        stage1 = _by_count(own, counts, lambda group: " / ".join(_stage1(group)))
        rows.append([layout, STAGE1, "", *stage1])
        for (setting, retrieval), group in _groups(own).items():
            gains = _by_count(group, counts, lambda found: _points(found, chosen_way(found)))
            if sum(map(bool, gains)) > 1:
                rows.append([layout, setting, retrieval, *gains])
    headers = ["layout", "setting", "retrieval", *map(str, counts)]
    return _table("By training identities, mAP over Stage 1", rows, headers)


def _by_count(trials: list[dict], counts: list[int], cell: Callable[[list[dict]], str]) -> list[str]:
    """Return a cell for each number of training identities; empty where there is no trial."""
    groups = ([trial for trial in trials if trial["identities"] == count] for count in counts)
    return [cell(group) if group else "" for group in groups]


def _table(title: str, rows: list[list], headers: list[str]) -> str:
    return f"{title}\n\n" + tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _draw(trials: list[dict], path: Path) -> None:
    """Draw a bar for every row, layouts side by side: the mean gain, and a dot for each seed."""
    layouts = sorted({trial["layout"] for trial in trials}, reverse=True)
    names = list(_groups(trials))
    figure = Figure(figsize=(5 + 4 * len(layouts), 1 + 0.32 * len(names)))
    axes = figure.subplots(1, len(layouts), sharex=True, sharey=True, squeeze=False)
    for layout, axis in zip(layouts, axes[0], strict=True):
        own = _groups([trial for trial in trials if trial["layout"] == layout])
        for place, name in enumerate(names):
            if name in own:
                gains = [_gain(trial, "test", chosen_way(own[name])) for trial in own[name]]
                axis.barh(place, statistics.mean(gains), color="lightgrey")
                for trial, gain in zip(own[name], gains, strict=True):
                    axis.plot(gain, place, ".", color=f"C{trial['seed']}", label=f"seed {trial['seed']}")
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(layout)
        axis.set_xlabel("mAP over Stage 1, points")
        labelled = {label: dot for dot, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        axis.legend(labelled.values(), labelled.keys(), loc="lower right")
    axes[0, 0].set_yticks(range(len(names)), [", ".join(name) for name in names], fontsize=8)
    axes[0, 0].invert_yaxis()
    figure.tight_layout()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)
