"""The rank lists of chosen queries as the page's script reads them, as many as there is room for."""

import itertools
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from fastreid.data import ReIDDataset, Sample
from fastreid.visualization.generated import GeneratedView
from fastreid.visualization.run_summary import RunSummary
from fastreid.visualization.selection import choose_queries
from fastreid.visualization.thumbnails import ThumbnailSheet


class ShownLists(NamedTuple):
    """The rank lists in a page."""

    lists: list[dict[str, Any]]
    shown: dict[str, int]  # queries of each protocol in `lists`
    cut: bool  # whether lists were left out because their pictures had no room


def collect_lists(
    datasets: Sequence[ReIDDataset], runs: Sequence[RunSummary], count: int, sheet: ThumbnailSheet
) -> ShownLists:
    """The lists of at most `count` queries a protocol, their pictures added to `sheet`.

    The protocols take turns, so that each loses as many where there is no room.

    Raises:
        UserError: if a picture cannot be read.
    """
    lists, shown = [], {dataset.name: 0 for dataset in datasets}
    chosen = [_chosen(dataset.name, runs, count) for dataset in datasets]
    for turn in itertools.zip_longest(*chosen):
        for dataset, query in zip(datasets, turn, strict=True):
            if query is None:
                continue
            if not sheet.add(_pictures(dataset, runs, query)):
                return ShownLists(lists, shown, cut=True)
            lists.append(_rank_list(dataset, runs, query, sheet.numbers))
            sheet.spend(len(json.dumps(lists[-1])))
            shown[dataset.name] += 1
    return ShownLists(lists, shown, cut=False)


def describe_sample(dataset: ReIDDataset, sample: Sample) -> dict[str, str]:
    """Describe an image for the page: ``file``, the full ``text``, the ``short`` one under a picture."""
    names = dataset.names_of(sample)
    person = f"person {names.person}" if sample.pid >= 0 else "nobody's"
    return {
        "file": os.path.basename(sample.path),
        "text": f"{names.view} view, camera {names.camera}, {person}",
        "short": f"{names.view}, cam {names.camera}",
    }


def _chosen(protocol: str, runs: Sequence[RunSummary], count: int) -> list[int]:
    precisions = [run.protocols[protocol].scores.ap for run in runs]
    return choose_queries(precisions[0], precisions[1] if len(runs) > 1 else None, count)


def _pictures(
    dataset: ReIDDataset, runs: Sequence[RunSummary], query: int
) -> list[tuple[str, dict[str, str]]]:
    samples = [dataset.query[query]]
    for run in runs:
        summary = run.protocols[dataset.name]
        rankings, views = summary.rankings, [view.nearest[query] for view in summary.generated]
        indices = [*rankings.top_k[query], rankings.next_match[query], *itertools.chain(*views)]
        samples += [dataset.gallery[index] for index in indices if index >= 0]
    return [(sample.path, describe_sample(dataset, sample)) for sample in samples]


def _rank_list(
    dataset: ReIDDataset, runs: Sequence[RunSummary], query: int, numbers: dict[str, int]
) -> dict[str, Any]:
    sample = dataset.query[query]
    return {
        "id": f"{dataset.name}-{query}",
        "number": query,
        "title": f"Query {query}",
        "protocol": dataset.name,
        "view": dataset.view_names[sample.viewid],
        "image": numbers[sample.path],
        "rows": [_row(dataset, run, number, query, numbers) for number, run in enumerate(runs)],
    }


def _row(
    dataset: ReIDDataset, run: RunSummary, number: int, query: int, numbers: dict[str, int]
) -> dict[str, Any]:
    """Collect what one run found for the query."""
    pid, summary = dataset.query[query].pid, run.protocols[dataset.name]
    scores, rankings = summary.scores, summary.rankings

    def found(index: int, rank: int, distance: float | None = None) -> dict[str, Any]:
        sample = dataset.gallery[index]
        value = None if distance is None else round(float(distance), 4)
        return {"image": numbers[sample.path], "rank": rank, "value": value, "match": sample.pid == pid}

    def generated(view: GeneratedView) -> dict[str, Any]:
        near = [found(index, rank) for rank, index in enumerate(view.nearest[query], 1) if index >= 0]
        return {"view": view.name, "first": int(view.first_hit[query]), "found": near}

    nearest = zip(rankings.top_k[query], rankings.distances[query], strict=True)
    beyond = int(rankings.next_match[query])
    return {
        "run": number,
        "ap": round(float(scores.ap[query]), 4),
        "first": int(scores.first_hit[query]),
        "found": [found(index, rank, d) for rank, (index, d) in enumerate(nearest, 1) if index >= 0],
        "next": None
        if beyond < 0
        else found(beyond, int(rankings.next_rank[query]), rankings.next_distance[query]),
        "generated": [generated(view) for view in summary.generated],
    }
