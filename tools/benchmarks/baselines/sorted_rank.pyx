# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The straightforward scoring of sorted rows: walk down each query's list, as fast-reid's kernel does."""

from libc.stdint cimport int64_t


def score_sorted(
    const int64_t[:, :] order, const int64_t[::1] q_pids, const int64_t[::1] g_pids,
    const int64_t[::1] q_camids, const int64_t[::1] g_camids, double[::1] ap, double[::1] inp,
    int64_t[::1] first,
):
    """Fill in the scores of the queries that have a match from the (Q, G) sorted gallery indices."""
    cdef Py_ssize_t i, k, item
    cdef int64_t rank, hits
    cdef double precisions
    for i in range(order.shape[0]):
        rank = hits = 0
        precisions = 0
        for k in range(order.shape[1]):
            item = order[i, k]
            if g_pids[item] == q_pids[i] and g_camids[item] == q_camids[i]:
                continue
            rank += 1
            if g_pids[item] == q_pids[i]:
                hits += 1
                precisions += <double>hits / rank
                inp[i] = <double>hits / rank
                if hits == 1:
                    first[i] = rank
        if hits:
            ap[i] = precisions / hits
