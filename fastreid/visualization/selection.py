"""The choice of the queries that a report shows."""

import itertools

import numpy as np


def spread_by_precision(average_precision: np.ndarray, count: int) -> list[int]:
    """Indices of `count` queries from the worst to the best average precision, evenly spaced in rank.

    Queries without a match (NaN) are left out.
    """
    order = _ascending(average_precision)
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return order[places].tolist()


def choose_queries(
    average_precision: np.ndarray, compared_precision: np.ndarray | None, count: int
) -> list[int]:
    """At most `count` queries, the ones to keep longest first.

    By turns: the worst, one of those spread evenly over all, and with `compared_precision` the one that
    gained most and the one that lost most against it. Queries without a match (NaN) are left out.

    Args:
        average_precision: (Q,) of the model.
        compared_precision: (Q,) of another model; None: there is none.
        count: how many.
    """
    ways = [_ascending(average_precision).tolist()]
    if compared_precision is not None:
        change = average_precision - compared_precision
        rising = _ascending(change)
        ways += [rising[change[rising] > 0][::-1].tolist(), rising[change[rising] < 0].tolist()]
    ways.insert(1, spread_by_precision(average_precision, -(-count // (len(ways) + 1))))
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(way[:count] for way in ways)))
    return list(dict.fromkeys(query for query in turns if query is not None))[:count]


def _ascending(values: np.ndarray) -> np.ndarray:
    """Indices in ascending order of the values, NaN left out."""
    order = np.argsort(values, kind="stable")
    return order[~np.isnan(values[order])]
