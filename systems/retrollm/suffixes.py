"""The loops over a suffix array, compiled. Importing this module loads numba.

tokens (n,) are documents with 0 behind each; suffixes (n,) are the places of all suffixes in order.
Suffixes low … high - 1 begin alike in ``depth`` tokens.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer[Any]]


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def narrowed(
    tokens: Ints, suffixes: Ints, low: int, high: int, depth: int, token: int
) -> tuple[int, int]:
    """Those of low … high - 1 that have ``token`` next: two searches by halves."""
    a, b = low, high
    while a < b:
        middle = (a + b) >> 1
        if tokens[suffixes[middle] + depth] < token:
            a = middle + 1
        else:
            b = middle
    start, b = a, high
    while a < b:
        middle = (a + b) >> 1
        if tokens[suffixes[middle] + depth] <= token:
            a = middle + 1
        else:
            b = middle
    return start, a


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def continued(
    tokens: Ints, suffixes: Ints, low: int, high: int, depth: int, ids: Ints, counts: Ints
) -> int:
    """Write what comes next, and how often, into ``ids`` and ``counts``, in order; give how many.
    Never 0, where a document ends. Equal tokens are passed over in doubling steps."""
    found, place = 0, low
    while place < high:
        token = tokens[suffixes[place] + depth]
        inside, outside, step = place, place + 1, 1
        while outside < high and tokens[suffixes[outside] + depth] == token:
            inside = outside
            step <<= 1
            outside = min(high, inside + step)
        a, b = inside + 1, outside
        while a < b:
            middle = (a + b) >> 1
            if tokens[suffixes[middle] + depth] == token:
                a = middle + 1
            else:
                b = middle
        if token != 0:
            ids[found], counts[found] = token, a - place
            found += 1
        place = a
    return found
