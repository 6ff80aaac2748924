# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Rank counting without sorting the gallery.

A hit's rank is one plus the number of valid gallery items before it, so each row of distances is read
once. The gallery items of a query's person are its *marks*: hits, or junk (seen by the query's own camera).
Items farther than the last hit are passed over by a comparison that the compiler vectorises. The others
are counted in the interval between two marks where they lie: a grid over the marks' distances leads to it
in constant time, and only an item in a cell that holds marks is compared with them. Queries are
independent of each other, so the result does not depend on the number of threads.

``fastreid.evaluation.rank`` and ``fastreid.evaluation.features`` check the arguments, and hold the same
steps in NumPy.
"""

from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY, isfinite, nextafterf, rint
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, qsort

ctypedef fused real:
    float
    double

cdef struct Mark:
    double distance
    int32_t index
    int32_t is_hit

# A query's marks in rank order up to the last hit, under a grid of equal cells from the first to the last
cdef struct Marks:
    Mark* sorted
    int32_t* cells  # cells[c] is the first mark in cell c or beyond
    Py_ssize_t n
    Py_ssize_t last_cell
    double low  # distance of the first mark
    double scale  # cells per unit of distance; 0 when there is one cell for all

cdef enum:
    CHUNK = 128  # items that are passed over together
    CELLS_PER_MARK = 16
    MOST_CELLS = 8192  # 32 kB
    LANES = 8  # partial sums of a dot product


cdef Py_ssize_t num_cells(Py_ssize_t n) noexcept nogil:
    return min(CELLS_PER_MARK * n, <Py_ssize_t>MOST_CELLS)


cdef int compare_marks(const void* a, const void* b) noexcept nogil:
    cdef const Mark* x = <const Mark*>a
    cdef const Mark* y = <const Mark*>b
    if x.distance != y.distance:
        return 1 if x.distance > y.distance else -1
    return (x.index > y.index) - (x.index < y.index)


cdef inline Py_ssize_t cell_of(const Marks* marks, double distance) noexcept nogil:
    """The distance's cell. Rounding keeps it monotonic: a mark in a lower cell has a smaller distance."""
    cdef double x = (distance - marks.low) * marks.scale
    if x >= marks.last_cell:
        return marks.last_cell
    return <Py_ssize_t>x if x > 0 else 0


cdef void sort_marks(Marks* marks) noexcept nogil:
    """Sort marks.sorted[:n], drop those behind the last hit (n = 0 without hits), and lay the grid."""
    cdef Py_ssize_t k, cell = 0, here
    qsort(marks.sorted, marks.n, sizeof(Mark), compare_marks)
    while marks.n and not marks.sorted[marks.n - 1].is_hit:
        marks.n -= 1
    if marks.n == 0:
        return
    marks.last_cell = num_cells(marks.n) - 1
    marks.low = marks.sorted[0].distance
    marks.scale = marks.last_cell / (marks.sorted[marks.n - 1].distance - marks.low)
    if not isfinite(marks.scale):
        marks.scale = 0
    for k in range(marks.n):
        here = cell_of(marks, marks.sorted[k].distance)
        while cell <= here:
            marks.cells[cell] = k
            cell += 1
    while cell <= marks.last_cell + 1:
        marks.cells[cell] = marks.n
        cell += 1


cdef inline Py_ssize_t marks_before(const Marks* marks, double distance, int64_t index) noexcept nogil:
    """Count those of the n >= 1 marks that come before the item."""
    cdef Py_ssize_t cell = cell_of(marks, distance)
    cdef Py_ssize_t low = marks.cells[cell], high = marks.cells[cell + 1], middle
    while low < high:
        middle = (low + high) >> 1
        if marks.sorted[middle].distance < distance or (
            marks.sorted[middle].distance == distance and marks.sorted[middle].index < index
        ):
            low = middle + 1
        else:
            high = middle
    return low


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


cdef void score(
    const Marks* marks, const int64_t* counts, double* ap, double* inp, int64_t* first
) noexcept nogil:
    """Average precision, inverse negative penalty and first hit's rank from the counts between marks."""
    cdef Py_ssize_t k, n_hits = 0
    cdef int64_t rank = 0
    cdef double precisions = 0
    for k in range(marks.n):
        rank += counts[k]
        if marks.sorted[k].is_hit:
            n_hits += 1
            precisions += <double>n_hits / rank
            if n_hits == 1:
                first[0] = rank
        else:
            rank -= 1
    if n_hits:
        ap[0] = precisions / n_hits
        inp[0] = <double>n_hits / rank


# ------------------------------------------------------------------------------------- distance matrices
cdef bint count_row(const real* row, Py_ssize_t n, const Marks* marks, int64_t* counts) noexcept nogil:
    """Add to counts[k] the items between marks k - 1 and k, mark k itself included. False on NaN."""
    cdef int32_t near[CHUNK]
    cdef real limit = <real>(marks.sorted[marks.n - 1].distance if marks.n else -INFINITY)
    cdef Py_ssize_t start = 0, j
    cdef int i, n_near
    while start < n:
        n_near = select_near(row + start, <int>min(<Py_ssize_t>CHUNK, n - start), limit, near)
        for i in range(n_near):
            j = start + near[i]
            if row[j] != row[j]:
                return False
            if marks.n:
                counts[marks_before(marks, row[j], j)] += 1
        start += CHUNK
    return True


cdef bint rank_query(
    const real* row, Py_ssize_t n, const int32_t* members, Py_ssize_t n_members, int64_t camid,
    const int64_t* g_camids, Marks marks, int64_t* counts, double* ap, double* inp, int64_t* first,
) noexcept nogil:
    """Score one query; members are the gallery items of its person, marks and counts are room to work in."""
    cdef Py_ssize_t i
    for i in range(n_members):
        if row[members[i]] != row[members[i]]:
            return False
        marks.sorted[i] = Mark(row[members[i]], members[i], g_camids[members[i]] != camid)
        counts[i] = 0
    marks.n = n_members
    sort_marks(&marks)
    if not count_row(row, n, &marks, counts):
        return False
    score(&marks, counts, ap, inp, first)
    return True


def rank_queries(
    const real[:, :] distmat, const int32_t[::1] members, const int64_t[::1] starts, const int64_t[::1] stops,
    const int64_t[::1] q_camids, const int64_t[::1] g_camids, double[::1] ap, double[::1] inp,
    int64_t[::1] first, uint8_t[::1] ok, int num_threads,
):
    """Score every query of a distance matrix whose rows are contiguous.

    ``members[starts[i]:stops[i]]`` are the gallery items of query i's person. Fills ap, inp and first of
    the queries that have a hit, and ok: 0 where the row holds a NaN.
    """
    cdef Py_ssize_t i, room = 1, cells, n = distmat.shape[1], num_q = distmat.shape[0]
    for i in range(num_q):
        room = max(room, stops[i] - starts[i] + 1)
    cells = num_cells(room) + 1
    cdef Mark* marks = <Mark*>malloc(num_threads * room * sizeof(Mark))
    cdef int32_t* grid = <int32_t*>malloc(num_threads * cells * sizeof(int32_t))
    cdef int64_t* counts = <int64_t*>malloc(num_threads * room * sizeof(int64_t))
    try:
        if marks == NULL or grid == NULL or counts == NULL:
            raise MemoryError
        for i in prange(num_q, nogil=True, schedule="dynamic", chunksize=8, num_threads=num_threads):
            ok[i] = rank_query(
                &distmat[i, 0], n, &members[0] + starts[i], stops[i] - starts[i], q_camids[i], &g_camids[0],
                Marks(marks + threadid() * room, grid + threadid() * cells, 0, 0, 0, 0),
                counts + threadid() * room, &ap[i], &inp[i], &first[i],
            )
    finally:
        free(marks)
        free(grid)
        free(counts)


# ---------------------------------------------------------------------------------------------- features
cdef double dot(const float* x, const float* y, Py_ssize_t n) noexcept nogil:
    """In float64 and in a fixed order, so that equal features give equal products."""
    cdef double sums[LANES]
    cdef double total = 0
    cdef Py_ssize_t i = 0
    cdef int lane
    for lane in range(LANES):
        sums[lane] = 0
    while i + LANES <= n:
        for lane in range(LANES):
            sums[lane] += <double>x[i + lane] * <double>y[i + lane]
        i += LANES
    while i < n:
        total += <double>x[i] * <double>y[i]
        i += 1
    for lane in range(LANES):
        total += sums[lane]
    return total


cdef class BlockRanker:
    """Ranks a block of queries against a gallery whose distances come in blocks of columns.

    The distance of query i and gallery item j is ``scale[j] * q[i] . g[j] + bias[j]`` in float64, rounded
    to a multiple of grid[i], so that distances that are equal but for float64's own rounding are equal. The
    blocks hold it in float32, each value within tolerance[i] of it: an item that is not farther than this
    from a mark is computed again in float64. So the ranks are those of the float64 distances.
    """

    cdef const float[:, ::1] q, g
    cdef const double[::1] scale, bias, tolerance, grid
    cdef Marks* marks
    cdef Mark* all_marks
    cdef int32_t* all_cells
    cdef int64_t* all_counts
    cdef int64_t** counts
    cdef int num_threads

    def __cinit__(
        self, const float[:, ::1] q, const float[:, ::1] g, const double[::1] scale, const double[::1] bias,
        const double[::1] tolerance, const double[::1] grid, const int32_t[::1] members,
        const int64_t[::1] starts, const int64_t[::1] stops, const int64_t[::1] q_camids,
        const int64_t[::1] g_camids, int num_threads,
    ):
        cdef Py_ssize_t i, n, total = 0, total_cells = 0, num_q = q.shape[0]
        self.q, self.g, self.scale, self.bias = q, g, scale, bias
        self.tolerance, self.grid = tolerance, grid
        self.num_threads = num_threads
        for i in range(num_q):
            total += stops[i] - starts[i] + 1
            total_cells += num_cells(stops[i] - starts[i]) + 1
        self.marks = <Marks*>malloc(num_q * sizeof(Marks))
        self.counts = <int64_t**>malloc(num_q * sizeof(int64_t*))
        self.all_marks = <Mark*>malloc(total * sizeof(Mark))
        self.all_cells = <int32_t*>malloc(total_cells * sizeof(int32_t))
        self.all_counts = <int64_t*>calloc(total, sizeof(int64_t))
        if not (self.marks and self.counts and self.all_marks and self.all_cells and self.all_counts):
            raise MemoryError
        total = total_cells = 0
        for i in range(num_q):
            n = stops[i] - starts[i]
            self.marks[i] = Marks(self.all_marks + total, self.all_cells + total_cells, n, 0, 0, 0)
            self.counts[i] = self.all_counts + total
            total += n + 1
            total_cells += num_cells(n) + 1
        for i in prange(num_q, nogil=True, schedule="dynamic", chunksize=8, num_threads=num_threads):
            self.place_marks(i, &members[0] + starts[i], q_camids[i], &g_camids[0])

    def __dealloc__(self):
        free(self.marks)
        free(self.counts)
        free(self.all_marks)
        free(self.all_cells)
        free(self.all_counts)

    cdef double distance(self, Py_ssize_t i, Py_ssize_t j) noexcept nogil:
        cdef double product = dot(&self.q[i, 0], &self.g[j, 0], self.q.shape[1])
        return rint((self.scale[j] * product + self.bias[j]) / self.grid[i]) * self.grid[i]

    cdef void place_marks(
        self, Py_ssize_t i, const int32_t* members, int64_t camid, const int64_t* g_camids
    ) noexcept nogil:
        cdef Py_ssize_t k
        for k in range(self.marks[i].n):
            self.marks[i].sorted[k] = Mark(
                self.distance(i, members[k]), members[k], g_camids[members[k]] != camid
            )
        sort_marks(&self.marks[i])

    cdef void count_row(self, const float* row, Py_ssize_t n, Py_ssize_t i, Py_ssize_t offset) noexcept nogil:
        cdef int32_t near[CHUNK]
        cdef const Marks* marks = &self.marks[i]
        cdef double tolerance = self.tolerance[i], distance
        cdef Py_ssize_t start = 0, j, k
        cdef int which, n_near
        if marks.n == 0:
            return
        cdef double last = marks.sorted[marks.n - 1].distance
        cdef float limit = nextafterf(<float>(last + tolerance), INFINITY)
        while start < n:
            n_near = select_near(row + start, <int>min(<Py_ssize_t>CHUNK, n - start), limit, near)
            for which in range(n_near):
                j = start + near[which]
                distance = row[j]
                k = marks_before(marks, distance - tolerance, -1)
                # written so that an overflow to NaN in the float32 product counts as unclear
                if k < marks.n and not (marks.sorted[k].distance > distance + tolerance):
                    k = marks_before(marks, self.distance(i, offset + j), offset + j)
                self.counts[i][k] += 1
            start += CHUNK

    def count(self, const float[:, :] block, Py_ssize_t offset):
        """Count the (Q, n) float32 distances to the gallery items from offset on. Rows are contiguous."""
        cdef Py_ssize_t i, n = block.shape[1]
        for i in prange(
            block.shape[0], nogil=True, schedule="dynamic", chunksize=8, num_threads=self.num_threads
        ):
            self.count_row(&block[i, 0], n, i, offset)

    def score(self, double[::1] ap, double[::1] inp, int64_t[::1] first):
        """Fill in the scores of the queries that have a hit, when the whole gallery was counted."""
        cdef Py_ssize_t i
        for i in range(self.q.shape[0]):
            score(&self.marks[i], self.counts[i], &ap[i], &inp[i], &first[i])
