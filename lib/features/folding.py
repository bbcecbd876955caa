"""The scalogram's inner loop compiled for the CPU: multiply by a scale's gains and fold, without copies."""

import numba
import numpy as np


@numba.njit(fastmath=True, cache=True)
def _add(real, imaginary, a, b, gains):
    for m in range(len(gains)):
        real[m] += a[m] * gains[m]
        imaginary[m] += b[m] * gains[m]


@numba.njit(fastmath=True, cache=True, nogil=True)
def fold(real, imaginary, gains, first, count, out):
    """Fill ``out``, (scales, points) complex: row i sums gain × spectrum over bins equal modulo points.

    ``real`` and ``imaginary`` are the spectrum; scale i hears ``count[i]`` bins from ``first[i]``, and the
    gains of all scales lie one after another in ``gains``.
    """
    points = out.shape[1]
    a = np.empty(points, np.float32)
    b = np.empty(points, np.float32)
    begin = 0
    for row in range(len(first)):
        a[:] = 0
        b[:] = 0
        for done in range(0, count[row], points):
            width = min(points, count[row] - done)
            k = first[row] + done
            g = begin + done
            _add(a[:width], b[:width], real[k : k + width], imaginary[k : k + width], gains[g : g + width])
        for m in range(points):
            out[row, m] = complex(a[m], b[m])
        begin += count[row]
