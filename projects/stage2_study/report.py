"""The study's results as a table and a plot."""

import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from fastreid.evaluation.bootstrap import paired_bootstrap
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, write_json
from projects.stage2_study.joining import ALONE
from projects.stage2_study.scoring import PERSONS, Trial, read_trials
from projects.stage2_study.settings import GOALS, HELD_OUT_GOALS, PROTOCOLS, REFERENCE, SETTINGS

Queries = dict[str, np.ndarray]
Scored = tuple[Trial, Queries]


class Gain(NamedTuple):
    """A difference of mAP to the reference, in points: its mean, and the 95 % interval over persons."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


@dataclass(frozen=True)
class Row:
    """A row of a layout's table.

    Attributes:
        names: of setting and retrieval.
        way: how features are joined, chosen on held-out identities where there are weights.
        trials: of each seed, with its queries.
        references: of the same seeds, in the same order.
    """

    names: tuple[str, str]
    way: str
    trials: list[Scored]
    references: list[Scored]

    def gain(self, protocols: tuple[str, ...]) -> Gain:
        """Return the gain in the mean over `protocols`.

        The queries' gains are averaged over seeds, then persons are resampled with all of their queries; a
        protocol counts as much as another, however many queries it has.

        Raises:
            UserError: if the seeds were not scored on the same queries.
        """
        gains, persons = [], []
        for protocol in protocols:
            ours, theirs = (
                _precisions(scored, f"{protocol}/{way}")
                for scored, way in ((self.trials, self.way), (self.references, _only_way(self.references)))
            )
            own = 100 * (ours - theirs)
            counts = ~np.isnan(own)
            gains.append(own[counts])
            persons.append(self.trials[0][1][f"{protocol}/{PERSONS}"][counts])
        total = sum(map(len, gains))
        weighted = [own * total / (len(gains) * len(own)) for own in gains]
        joined = np.concatenate(weighted)
        return Gain(float(joined.mean()), *paired_bootstrap(joined, np.concatenate(persons)))

    def seed_gains(self, protocols: tuple[str, ...], way: str = "") -> dict[int, float]:
        """Return each seed's gain in the mean over `protocols`, joined in this row's way or another."""
        return {
            trial.seed: _mean_map(trial, "test", way or self.way, protocols)
            - _mean_map(reference, "test", _only_way([(reference, {})]), protocols)
            for (trial, _), (reference, _) in zip(self.trials, self.references, strict=True)
        }


def write_report(output: Path) -> None:
    """Read all finished trials below `output`; write results.json, table.md and two pictures there.

    Raises:
        UserError: if no trial is finished, or seeds were scored on other queries.
    """
    trials = read_trials(output)
    if not trials:
        raise UserError(f"{output}: no finished trial yet", "run the study without --report-only")
    order = [(setting.name, retrieval.name) for setting in SETTINGS for retrieval in setting.retrievals]
    places = {row: place for place, row in enumerate(order)}
    trials.sort(key=lambda scored: places.get(scored[0].row, len(places)))
    write_json(output / "results.json", [asdict(trial) for trial, _ in trials])
    layouts = {layout: layout_rows(trials, layout) for layout in GOALS}
    layouts = {layout: rows for layout, rows in layouts.items() if rows}
    text = "\n\n".join(_layout_table(layout, rows) for layout, rows in layouts.items())
    with atomic_write(output / "table.md", "w") as file:
        file.write(text + "\n")
    _draw(layouts, output / "gains.png")
    _draw_weights(layouts, output / "weights.png")
    print(text)


def layout_rows(trials: list[Scored], layout: str) -> list[Row]:
    """Return the rows of a layout in the order of `trials`, without seeds that have no reference yet."""
    groups: dict[tuple[str, str], list[Scored]] = defaultdict(list)
    own = [scored for scored in trials if scored[0].layout == layout]
    references = {trial.seed: (trial, queries) for trial, queries in own if trial.setting == REFERENCE}
    for trial, queries in own:
        if trial.seed in references:
            groups[trial.row].append((trial, queries))
    rows = []
    for names, group in groups.items():
        compared = [references[trial.seed] for trial, _ in group]
        rows += [Row(names, way, group, compared) for way in chosen_ways([trial for trial, _ in group])]
    return rows


def chosen_ways(trials: list[Trial]) -> list[str]:
    """Return the ways to join that are shown: those without a weight, and of the weights the best one.

    That is the one with the highest mAP on held-out identities in the layout's goal, the mean over seeds.
    """
    ways = list(trials[0].mAP["held out"])
    weights = [way for way in ways if way.startswith("weight")]

    def held_out(way: str) -> float:
        goal = HELD_OUT_GOALS[trials[0].layout]
        return statistics.mean(_mean_map(trial, "held out", way, goal) for trial in trials)

    return [way for way in ways if way not in weights] + sorted(weights, key=held_out, reverse=True)[:1]


def _mean_map(trial: Trial, split: str, way: str, protocols: tuple[str, ...] = ()) -> float:
    scores = trial.mAP[split][way]
    return statistics.mean(scores[name] for name in protocols or scores)


def _only_way(scored: list[Scored]) -> str:
    (way,) = scored[0][0].mAP["test"]
    return way


def _precisions(scored: list[Scored], key: str) -> np.ndarray:
    """Return the mean over seeds of each query's average precision (Q,)."""
    persons = f"{key.split('/')[0]}/{PERSONS}"
    first, *others = (queries[persons] for _, queries in scored)
    if not all(np.array_equal(first, other) for other in others):
        folder = f"{scored[0][0].layout}, {scored[0][0].setting}"
        raise UserError(f"{folder}: seeds were scored on other queries", "choose another --output or --root")
    return np.mean([queries[key].astype(np.float64) for _, queries in scored], axis=0)


def _layout_table(layout: str, rows: list[Row]) -> str:
    """Tabulate the reference's mAP, and what every row adds to it."""
    goal = GOALS[layout]
    columns = {name: (name,) for name in PROTOCOLS[layout]} | ({"mean": goal} if len(goal) > 1 else {})
    lines = []
    for row in rows:
        gains = [_scores(row, names) for names in columns.values()]
        lines.append([*row.names, row.way, *gains, _spread(row, goal), *_diagnostics(row)])
    headers = ["setting", "retrieval", "joined", *columns, "seeds", "views alike", "right view (chance)"]
    title = f"{layout}, mAP over {REFERENCE}, in points, with the 95 % interval over persons"
    return f"{title}\n\n" + tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def _scores(row: Row, protocols: tuple[str, ...]) -> str:
    if row.names[0] != REFERENCE:
        return str(row.gain(protocols))
    return f"{statistics.mean(_mean_map(trial, 'test', row.way, protocols) for trial, _ in row.trials):.1f}"


def _spread(row: Row, goal: tuple[str, ...]) -> str:
    """Return the number of seeds, and the deviation of their gains where there are several."""
    gains = list(row.seed_gains(goal).values())
    return f"{len(gains)}" + (f", ± {statistics.stdev(gains):.1f}" if len(gains) > 1 else "")


def _diagnostics(row: Row) -> list[str]:
    """Return the cells of `diagnostics.diagnose`, means over seeds."""
    found = [trial.diagnostics for trial, _ in row.trials]
    if not all("view_cosine" in diagnostics for diagnostics in found):
        return ["", ""]
    cosine, right, chance = (
        statistics.mean(diagnostics[name] for diagnostics in found)
        for name in ("view_cosine", "right_view", "chance")
    )
    return [f"{cosine:.4f}", f"{right:.0f} % ({chance:.0f} %)"]


def _draw(layouts: dict[str, list[Row]], path: Path) -> None:
    """Draw the gain of every row with its interval, layouts side by side, and a dot for each seed."""
    shown = {
        layout: {(*row.names, _unweighted(row.way)): row for row in rows if row.names[0] != REFERENCE}
        for layout, rows in layouts.items()
    }
    names = list(dict.fromkeys(name for rows in shown.values() for name in rows))
    figure = Figure(figsize=(5 + 4 * len(layouts), 1.5 + 0.32 * len(names)))
    axes = figure.subplots(1, max(1, len(layouts)), sharey=True, squeeze=False)
    for (layout, rows), axis in zip(shown.items(), axes[0], strict=True):
        for place, name in enumerate(names):
            if name in rows:
                _draw_row(axis, place, rows[name], GOALS[layout])
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(layout)
        axis.set_xlabel(f"mAP over {REFERENCE}, points:\n{', '.join(GOALS[layout])}", fontsize=8)
        labelled = {label: dot for dot, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        if labelled:
            axis.legend(labelled.values(), labelled.keys(), loc="lower right")
    axes[0, 0].set_yticks(range(len(names)), [", ".join(filter(None, name)) for name in names], fontsize=8)
    axes[0, 0].invert_yaxis()
    figure.tight_layout()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


def _unweighted(way: str) -> str:
    """Return the way to join as the plot names it: with a weight, which layouts choose apart, it is usual."""
    return "" if way.startswith("weight") or way == ALONE else way


def _draw_row(axis: object, place: int, row: Row, goal: tuple[str, ...]) -> None:
    gain = row.gain(goal)
    axis.barh(place, gain.mean, color="lightgrey")
    axis.plot([gain.low, gain.high], [place, place], color="grey")
    for seed, value in row.seed_gains(goal).items():
        axis.plot(value, place, ".", color=f"C{seed}", label=f"seed {seed}")


def _draw_weights(layouts: dict[str, list[Row]], path: Path) -> None:
    """Draw the gain of rows of all seeds by the weight of their parts; a ring is the chosen weight."""
    figure = Figure(figsize=(1 + 5 * len(layouts), 5.5))
    axes = figure.subplots(1, max(1, len(layouts)), squeeze=False)
    for (layout, rows), axis in zip(layouts.items(), axes[0], strict=True):
        seeds = max((len(row.trials) for row in rows), default=0)
        colors: dict[str, str] = {}  # of each setting; its second way to retrieve is dashed
        for row in rows:
            weights = [way for way in row.trials[0][0].mAP["test"] if way.startswith("weight")]
            if row.way in weights and len(row.trials) == seeds:
                style = "--" if row.names[0] in colors else "-"
                color = colors.setdefault(row.names[0], f"C{len(colors)}")
                gains = [statistics.mean(row.seed_gains(GOALS[layout], way).values()) for way in weights]
                name, chosen = ", ".join(filter(None, row.names)), weights.index(row.way)
                ring = {"markevery": [chosen], "marker": "o", "markerfacecolor": "none"}
                places = [float(way.removeprefix("weight ")) for way in weights]
                axis.plot(places, gains, style, color=color, label=name, **ring)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_title(layout)
        axis.set_xlabel("weight of the joined parts; the person feature has 1")
        axis.set_ylabel(f"mAP over {REFERENCE}, points")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, fontsize=8)
    figure.tight_layout(rect=(0, 0.2, 1, 1))
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)
