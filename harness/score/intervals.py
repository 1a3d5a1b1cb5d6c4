"""Intervals of means by the cluster bootstrap: groups are resampled, not questions.

The mean is over questions, so over groups it is a ratio: sum of the groups' totals / sum of
their sizes, taken anew in every resample. From 100 groups on, percentile intervals; below, BCa
(Efron 1987), which corrects bias and skew. Seeded: the same scores give the same interval.

Resampling groups that are all alike would give an interval of no width, however few they are.
Where every value is 0, or every one is 1, the interval is instead the one-sided exact bound of
Clopper and Pearson (Biometrika 1934) over groups: 0 … 1 - (1 - level)^(1 / groups), about
3 / groups at 95 % (the "rule of three", Hanley and Lippman-Hand, JAMA 1983). It bounds the share
of groups that are not like those seen, and so the mean of scores in 0..1. Any other column
without variation between groups has no interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES = 10_000
FEW = 100
"""Groups below which percentile intervals cover too little."""
TINY = 1e-12
"""What rounding may make of equal means."""
_CHUNK = 4_000_000
"""Numbers drawn at a time."""


def cluster_intervals(
    values: Floats, groups: Sequence[str], level: float = 0.95, seed: int = 0
) -> tuple[Floats, Floats, Floats, npt.NDArray[np.int64]]:
    """Mean, low, high and number of groups of each column of ``values`` (questions, columns).

    values: scores as fractions in 0..1 (a few official ones exceed 1; nothing is clamped); NaN
            where there is none: each column has its own questions
    groups: the resampling unit of each question, (questions,)
    level:  of confidence, as a fraction
    seed:   of the resampling
    With fewer than two groups, or groups that are all alike but not all 0 or all 1 (see above),
    low and high are NaN.
    """
    codes = np.unique(np.asarray(groups, dtype=object), return_inverse=True)[1]
    there = ~np.isnan(values)
    sums, counts = _by_group(np.where(there, values, 0.0), codes), _by_group(there * 1.0, codes)
    columns = values.shape[1]
    mean, low, high = (np.full(columns, np.nan) for _ in range(3))
    sizes = np.zeros(columns, dtype=np.int64)
    for pattern, members in _same_groups(counts > 0):
        total, number = sums[pattern][:, members], counts[pattern][:, members]
        sizes[members] = len(total)
        if len(total) == 0:
            continue
        mean[members] = total.sum(0) / number.sum(0)
        if len(total) > 1:
            low[members], high[members] = _interval(total, number, level, seed)
    _bound_constants(values, sizes, low, high, level)
    return mean, low, high, sizes


def _bound_constants(
    values: Floats, sizes: npt.NDArray[np.int64], low: Floats, high: Floats, level: float
) -> None:
    """Replace intervals of no width: exact bounds where all values are 0 or all 1, else NaN."""
    for column in np.flatnonzero(high - low <= TINY):
        seen = values[~np.isnan(values[:, column]), column]
        rest = (1 - level) ** (1 / sizes[column])
        low[column], high[column] = np.nan, np.nan
        if not seen.any():
            low[column], high[column] = 0.0, 1 - rest
        elif (seen == 1).all():
            low[column], high[column] = rest, 1.0


def _by_group(values: Floats, codes: npt.NDArray[np.int64]) -> Floats:
    out = np.zeros((int(codes.max()) + 1 if len(codes) else 0, values.shape[1]))
    np.add.at(out, codes, values)
    return out


def _same_groups(present: npt.NDArray[np.bool_]) -> list[tuple[Any, list[int]]]:
    """Columns that have values in the same groups can share their resamples."""
    found: dict[bytes, tuple[Any, list[int]]] = {}
    for column in range(present.shape[1]):
        mask = present[:, column]
        found.setdefault(mask.tobytes(), (mask, []))[1].append(column)
    return list(found.values())


def _interval(total: Floats, number: Floats, level: float, seed: int) -> tuple[Floats, Floats]:
    means = np.sort(resampled(total, number, seed), axis=0)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if len(total) >= FEW:
        low, high = np.quantile(means, tails, axis=0)
        return low, high
    edges = _bca(means, total, number, tails)
    picked = [np.quantile(means[:, c], edges[:, c]) for c in range(means.shape[1])]
    return np.array([low for low, _ in picked]), np.array([high for _, high in picked])


def resampled(total: Floats, number: Floats, seed: int) -> Floats:
    """Means over groups drawn with replacement, (RESAMPLES, columns)."""
    generator = np.random.default_rng(seed)
    size = len(total)
    chunk = max(1, _CHUNK // size)
    means = []
    for start in range(0, RESAMPLES, chunk):
        rounds = min(chunk, RESAMPLES - start)
        drawn = generator.integers(0, size, (rounds, size), dtype=np.int32)
        drawn += np.arange(rounds, dtype=np.int32)[:, None] * size
        weights = np.bincount(drawn.ravel(), minlength=rounds * size).reshape(rounds, size)
        weights = weights.astype(np.float64)
        means.append((weights @ total) / (weights @ number))
    return np.concatenate(means)


def _bca(means: Floats, total: Floats, number: Floats, tails: Floats) -> Floats:
    """Where the two ends stand in the resampled means, as fractions, (2, columns)."""
    from statistics import NormalDist

    normal = NormalDist()
    mean = total.sum(0) / number.sum(0)
    below = (means < mean - TINY).mean(0) + (np.abs(means - mean) <= TINY).mean(0) / 2
    left_out = (total.sum(0) - total) / (number.sum(0) - number)
    lean = left_out.mean(0) - left_out
    spread = (lean**2).sum(0) ** 1.5
    skew = np.divide((lean**3).sum(0), 6 * spread, out=np.zeros_like(spread), where=spread > 0)
    edges = np.empty((2, len(mean)))
    for column, (share, acceleration) in enumerate(zip(below, skew, strict=True)):
        bias = normal.inv_cdf(min(max(share, 1 / (2 * len(means))), 1 - 1 / (2 * len(means))))
        for end, tail in enumerate(tails):
            shift = bias + normal.inv_cdf(tail)
            edges[end, column] = normal.cdf(bias + shift / (1 - acceleration * shift))
    return edges
