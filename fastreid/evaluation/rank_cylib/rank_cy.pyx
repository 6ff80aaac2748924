# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Rank counting without sorting the gallery.

A hit's rank is one plus the number of valid gallery items before it, so each row of distances is read
once: items farther than the query's last hit are passed over by a comparison that the compiler
vectorises, and the few others are put into the interval between two hits by a branchless binary search.
Queries are independent of each other: the result does not depend on the number of threads.

The functions fill arrays that the caller allocates; ``fastreid.evaluation.rank`` and
``fastreid.evaluation.features`` check the arguments and hold the same steps in NumPy.
"""

from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc, qsort

ctypedef fused real:
    float
    double

cdef struct Hit:
    double distance
    int32_t index

cdef enum:
    CHUNK = 128


cdef int compare_hits(const void* a, const void* b) noexcept nogil:
    cdef const Hit* x = <const Hit*>a
    cdef const Hit* y = <const Hit*>b
    if x.distance != y.distance:
        return 1 if x.distance > y.distance else -1
    return (x.index > y.index) - (x.index < y.index)


cdef inline Py_ssize_t precedes(const Hit* hit, double distance, int64_t index) noexcept nogil:
    return (hit.distance < distance) | ((hit.distance == distance) & (hit.index < index))


cdef inline Py_ssize_t hits_before(const Hit* hits, Py_ssize_t n, double distance, int64_t index) noexcept nogil:
    """How many of the n >= 1 sorted hits come before the item."""
    cdef const Hit* base = hits
    cdef Py_ssize_t half
    while n > 1:
        half = n >> 1
        base += half * precedes(base + half - 1, distance, index)
        n -= half
    return (base - hits) + precedes(base, distance, index)


cdef inline int select_near(const real* row, int n, real limit, int32_t* near) noexcept nogil:
    """Positions of the n <= CHUNK items that are not farther than limit; NaN counts as near."""
    cdef int j
    cdef int32_t count = 0
    for j in range(n):
        count += not (row[j] > limit)
    if count == 0:
        return 0
    count = 0
    for j in range(n):
        near[count] = j
        count += not (row[j] > limit)
    return count


cdef bint count_row(
    const real* row, Py_ssize_t n, const Hit* hits, Py_ssize_t n_hits, int64_t* counts
) noexcept nogil:
    """Add to counts[k] the items between hits k - 1 and k (hit k itself included). False on NaN."""
    cdef int32_t near[CHUNK]
    cdef real limit = <real>(hits[n_hits - 1].distance if n_hits else -INFINITY)
    cdef Py_ssize_t start = 0, j
    cdef int i, n_near
    while start < n:
        n_near = select_near(row + start, <int>min(<Py_ssize_t>CHUNK, n - start), limit, near)
        for i in range(n_near):
            j = start + near[i]
            if row[j] != row[j]:
                return False
            if n_hits:
                counts[hits_before(hits, n_hits, row[j], j)] += 1
        start += CHUNK
    return True


cdef void score(const int64_t* counts, Py_ssize_t n_hits, double* ap, double* inp, int64_t* first) noexcept nogil:
    """Average precision, inverse negative penalty and first hit's rank from the interval counts."""
    cdef Py_ssize_t k
    cdef int64_t rank = 0
    cdef double precisions = 0
    first[0] = counts[0]
    for k in range(n_hits):
        rank += counts[k]
        precisions += <double>(k + 1) / rank
    ap[0] = precisions / n_hits
    inp[0] = <double>n_hits / rank


cdef bint rank_query(
    const real* row, Py_ssize_t n, const int32_t* members, Py_ssize_t n_members, int64_t camid,
    const int64_t* g_camids, Hit* hits, int64_t* counts, double* ap, double* inp, int64_t* first,
) noexcept nogil:
    """Score one query; members are the gallery items of its pid. False on NaN."""
    cdef Py_ssize_t i, n_hits = 0
    cdef int32_t j
    for i in range(n_members):
        j = members[i]
        if row[j] != row[j]:
            return False
        if g_camids[j] != camid:
            hits[n_hits].distance = row[j]
            hits[n_hits].index = j
            n_hits += 1
    qsort(hits, n_hits, sizeof(Hit), compare_hits)
    for i in range(n_hits + 1):
        counts[i] = 0
    if not count_row(row, n, hits, n_hits, counts):
        return False
    if n_hits == 0:
        return True
    for i in range(n_members):
        j = members[i]
        if g_camids[j] == camid:
            counts[hits_before(hits, n_hits, row[j], j)] -= 1
    score(counts, n_hits, ap, inp, first)
    return True


def rank_queries(
    const real[:, :] distmat, const int32_t[::1] members, const int64_t[::1] starts, const int64_t[::1] stops,
    const int64_t[::1] q_camids, const int64_t[::1] g_camids, double[::1] ap, double[::1] inp,
    int64_t[::1] first, uint8_t[::1] ok, int num_threads,
):
    """Score every query of a distance matrix whose rows are contiguous.

    ``members[starts[i]:stops[i]]`` are the gallery items of query i's pid. Fills ap, inp and first of the
    queries that have a hit, and ok: 0 where the row holds a NaN.
    """
    cdef Py_ssize_t i, most = 0, n = distmat.shape[1], num_q = distmat.shape[0]
    for i in range(num_q):
        most = max(most, stops[i] - starts[i])
    cdef Hit* hits = <Hit*>malloc(num_threads * (most + 1) * sizeof(Hit))
    cdef int64_t* counts = <int64_t*>malloc(num_threads * (most + 1) * sizeof(int64_t))
    if hits == NULL or counts == NULL:
        free(hits)
        free(counts)
        raise MemoryError
    for i in prange(num_q, nogil=True, schedule="dynamic", chunksize=8, num_threads=num_threads):
        ok[i] = rank_query(
            &distmat[i, 0], n, &members[0] + starts[i], stops[i] - starts[i], q_camids[i], &g_camids[0],
            hits + threadid() * (most + 1), counts + threadid() * (most + 1), &ap[i], &inp[i], &first[i],
        )
    free(hits)
    free(counts)
