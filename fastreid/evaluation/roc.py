"""The receiver operating characteristic of all query-gallery pairs, from exact counts."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fastreid.evaluation.rank import Labels

FALSE_POSITIVE_RATES = (1e-4, 1e-3, 1e-2)

RowBlocks = Iterable[tuple[slice, np.ndarray]]


def tpr_at_fpr(
    row_blocks: Callable[[], RowBlocks], labels: Labels, rates: Sequence[float] = FALSE_POSITIVE_RATES
) -> np.ndarray:
    """The highest share of matching pairs accepted at a threshold that accepts at most `rate` of the others.

    Pairs of the same person and camera, and queries without a match, do not count. A pair is accepted when
    its distance is at most the threshold. Only the matching pairs' distances are held; the others are
    counted between them, and from the first threshold that is beyond the highest rate on not even that.

    Args:
        row_blocks: called once for each of two passes; gives ``(rows, (len(rows), G) distances)``.
        labels: of the whole distance matrix.
        rates: false positive rates, each in [0, 1].

    Returns:
        (len(rates),) float64 true positive rates.

    Raises:
        ValueError: when there is no matching pair.
    """
    matching, num_others = _matching_distances(row_blocks(), labels)
    if not len(matching):
        raise ValueError("no query has a match of another camera in the gallery: no ROC")
    allowed = np.floor(np.asarray(rates) * num_others * (1 + 1e-12)).astype(np.int64)
    accepted_others = np.cumsum(_count_others(row_blocks(), labels, matching, allowed.max()))
    # accepted_others[k]: pairs of different persons accepted at threshold matching[k], ascending
    last = np.searchsorted(accepted_others, allowed, side="right")
    thresholds = np.append(-np.inf, matching)[last]
    return np.searchsorted(matching, thresholds, side="right") / len(matching)


def _matching_distances(row_blocks: RowBlocks, labels: Labels) -> tuple[np.ndarray, int]:
    """All matching pairs' distances, ascending, and the number of pairs of different persons."""
    matching, num_others = [np.empty(0, np.float32)], 0
    for rows, distances in row_blocks:
        for query, row in enumerate(distances, start=rows.start):
            hits, junk = labels.hits_and_junk(query)
            matching.append(row[hits])
            num_others += len(row) - len(hits) - len(junk) if len(hits) else 0
    return np.sort(np.concatenate(matching)), num_others


def _count_others(row_blocks: RowBlocks, labels: Labels, matching: np.ndarray, most: int) -> np.ndarray:
    """(P,) others in ``(matching[k - 1], matching[k]]``; exact as far as their sum is at most `most`."""
    counts = np.zeros(len(matching) + 1, np.int64)
    limit = matching[-1]
    for rows, distances in row_blocks:
        for query, row in enumerate(distances, start=rows.start):
            hits, junk = labels.hits_and_junk(query)
            if not len(hits):
                continue
            others = row <= limit
            others[hits] = others[junk] = False
            counts += np.bincount(np.searchsorted(matching, row[others]), minlength=len(counts))
        reached = np.searchsorted(np.cumsum(counts), most, side="right")
        limit = matching[min(reached, len(matching) - 1)]
    return counts[:-1]
