"""Evaluation at equal terms: one match and as many distractors for every query, drawn by seed.

The metrics of protocols differ with the sizes of their galleries and the numbers of matches in them. Among
one match and G distractors chance alone gives the same in every protocol, so they can be compared.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from fastreid.evaluation.rank import Labels, QueryScores, check_labels
from fastreid.structures import Metrics, Results, RetrievalTask, Sample

AT_EQUAL_TERMS = "@1:"  # in names of metrics, before the number of distractors

Score = Callable[[int, np.ndarray, Labels], QueryScores]


class Draws(NamedTuple):
    """The galleries of the S queries that have a match, each of G distractors."""

    queries: np.ndarray  # (S,) int64, in order
    items: np.ndarray  # (S, G + 1) int64, gallery indices: distractors, then the match


class ViewGap(NamedTuple):
    """Mean mAP at equal terms, in percent, of protocols within one view and of those across views."""

    within: float
    across: float
    gap: float  # the first less the second, in points


def metric_names(distractors: int) -> tuple[str, str]:
    """Return the names of Rank-1 and mAP among one match and so many distractors."""
    return f"Rank-1{AT_EQUAL_TERMS}{distractors}", f"mAP{AT_EQUAL_TERMS}{distractors}"


def fewest_distractors(labels: Labels) -> int:
    """Count the gallery images of other persons for the query with a match that has the fewest."""
    own = labels.stops - labels.starts
    return len(labels.members) - int(own[list(_matches(labels))].max(initial=0))


def draw(labels: Labels, distractors: int, seed: int) -> Draws:
    """Draw for each query one of its matches, and images of other persons without replacement, junk included.

    The draws depend on labels and seed alone. The matches are the same for every number of distractors.

    Raises:
        ValueError: if a query has fewer images of other persons (`fewest_distractors`).
    """
    generator = np.random.default_rng(seed)
    matches = _matches(labels)
    items = np.empty((len(matches), distractors + 1), np.int64)
    items[:, -1] = [generator.choice(own) for own in matches.values()]
    for query, row in zip(matches, items, strict=True):
        start, own = labels.starts[query], labels.stops[query] - labels.starts[query]
        places = generator.choice(len(labels.members) - own, distractors, replace=False)
        row[:-1] = labels.members[np.where(places < start, places, places + own)]
    return Draws(np.array(list(matches), np.int64), items)


def _matches(labels: Labels) -> dict[int, np.ndarray]:
    """Return the gallery indices of its matches for each query that has one."""
    hits = {query: labels.hits_and_junk(query)[0] for query in range(len(labels.starts))}
    return {query: own for query, own in hits.items() if len(own)}


def match_ranks(draws: Draws, score: Score) -> np.ndarray:
    """Rank each match among its distractors: 1 + how many of them are nearer or equally near.

    A tie counts against the query: features that are all the same get the worst rank, 1 + G.

    Args:
        score: scores ``(query, items, labels)``, one query against the gallery images `items` alone, as the
            whole gallery is scored. What is equally near there is so here.

    Returns:
        (S,) int64, from 1.
    """
    size = draws.items.shape[1]
    # equal distances are ordered by index, and the match is the last: its rank has the ties before it
    persons = np.arange(size) == size - 1
    labels = check_labels(1, size, [1], persons.astype(np.int64), [0], np.ones(size, np.int64))
    pairs = zip(draws.queries.tolist(), draws.items, strict=True)
    return np.array([score(query, items, labels).first_hit[0] for query, items in pairs], np.int64)


def summarise_ranks(ranks: np.ndarray, distractors: int) -> Metrics:
    """Return Rank-1 and mAP in percent; with one match the average precision is 1 / rank."""
    values = np.mean(ranks == 1), np.mean(1 / ranks)
    return {name: 100 * float(value) for name, value in zip(metric_names(distractors), values, strict=True)}


def view_gap(tasks: Iterable[RetrievalTask], results: Results, distractors: int) -> ViewGap | None:
    """Return the gap between protocols within one view and across views; None where one kind is missing.

    Within: all queries and all of the gallery show the same one view. Across: no view is on both sides. Other
    protocols, such as those that search both views from both, count in neither.
    """
    within, across = [], []
    for task in tasks if distractors else ():
        value = results[task.name][metric_names(distractors)[1]]
        asked, among = views_of(task.query), views_of(task.gallery)
        if asked == among and len(asked) == 1:
            within.append(value)
        elif not set(asked) & set(among):
            across.append(value)
    if not within or not across:
        return None
    means = float(np.mean(within)), float(np.mean(across))
    return ViewGap(*means, means[0] - means[1])


def views_of(samples: Iterable[Sample]) -> tuple[int, ...]:
    """Return the ids of the views that are shown, ascending."""
    return tuple(sorted({sample.viewid for sample in samples}))
