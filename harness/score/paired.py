"""The difference of two systems on the same questions, and whether it is more than noise.

The unit is the group (questions that share documents or a world), as in `harness.score.intervals`:
the mean is over questions, resampled and flipped are groups.

Interval: from `MANY` groups on, percentiles of the cluster bootstrap. Below, mean ± t · SE with
the jackknife's SE over groups and Student's t of groups - 1 degrees of freedom: on skewed
differences of EM in few groups percentile, BCa and bootstrap-t intervals of nominal 95 % cover 60
to 90 %, this one 92 to 97 (`python benchmarks/compare.py --coverage`). Where all groups differ by
the very same (by nothing, say), the exact bound of `harness.score.intervals` on the share of groups
that do not: 1 - .05^(1 / groups) of them may differ by as much as can be, -1 or 1.
p: sign-flip test of no difference, two-sided: all flips of the groups' totals up to `EXACT` groups
that differ at all, else `RESAMPLES` drawn ones (Fisher 1935; Phipson and Smyth 2010 for the +1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.score.intervals import RESAMPLES, TINY, Floats, resampled

MANY = 300
"""Groups from which percentiles of resampled means cover what they say."""
EXACT = 20
"""Groups up to which all 2^n flips are counted."""
POWER = 0.8
_ALIKE = 20
"""So many groups a kind, or kinds are not worth the sorting."""
_CHUNK = 2_000_000
"""Numbers drawn at a time."""


@dataclass(frozen=True)
class Paired:
    """New minus base: the mean difference over ``n`` questions in ``groups`` groups.

    low, high: its interval; NaN with one group
    p:         of the sign-flip test; 1 where nothing differs
    visible:   the smallest true difference that would be found in four of five such samples
               (80 % power at the interval's level), from the jackknife's SE; NaN with one group, or
               where all groups differ by the very same
    """

    difference: float
    low: float
    high: float
    p: float
    n: int
    groups: int
    wins: int
    ties: int
    losses: int
    visible: float


def paired(
    base: Floats, new: Floats, groups: Sequence[str], seed: int = 0, level: float = 0.95
) -> Paired:
    """Compare two systems' scores of one metric, question by question.

    base, new: (questions,) in 0..1, of the same questions; one that is NaN in either is left out
    groups:    the resampling unit of each question, (questions,)
    Raises `ValueError` if no question has both.
    """
    apart, totals, sizes = _grouped(base, new, groups)
    mean, count = totals.sum() / sizes.sum(), len(totals)
    low, high, visible = _interval(totals, sizes, seed, level)
    if math.isnan(low) and count > 1:
        share = 1 - (1 - level) ** (1 / count)
        low, high = mean - share * (1 + mean), mean + share * (1 - mean)
    return Paired(
        float(mean),
        low,
        high,
        _sign_flip(totals, seed),
        len(apart),
        count,
        int((apart > 0).sum()),
        int((apart == 0).sum()),
        int((apart < 0).sum()),
        visible,
    )


def sign_flip(base: Floats, new: Floats, groups: Sequence[str], seed: int = 0) -> float:
    """The p of `paired` alone, without its resampling."""
    return _sign_flip(_grouped(base, new, groups)[1], seed)


def _grouped(base: Floats, new: Floats, groups: Sequence[str]) -> tuple[Floats, Floats, Floats]:
    """The difference of each question that has both scores, and the total and size of its group."""
    there = ~(np.isnan(base) | np.isnan(new))
    apart = (new - base)[there]
    if not len(apart):
        raise ValueError("no question has a score of both")
    apart[np.abs(apart) < TINY] = 0.0
    names = np.asarray(groups, dtype=object)[there]
    codes = np.unique(names, return_inverse=True)[1]
    totals = np.bincount(codes, apart).astype(np.float64)
    return apart, totals, np.bincount(codes).astype(np.float64)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted for so many comparisons, in their order (Holm 1979)."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted


def _interval(totals: Floats, sizes: Floats, seed: int, level: float) -> tuple[float, float, float]:
    """Low and high ends, and the smallest visible difference."""
    from scipy.stats import t

    count = len(totals)
    if count < 2:
        return math.nan, math.nan, math.nan
    mean = totals.sum() / sizes.sum()
    left_out = (totals.sum() - totals) / (sizes.sum() - sizes)
    error = math.sqrt((count - 1) / count * float(((left_out - mean) ** 2).sum()))
    if error <= TINY:
        return math.nan, math.nan, math.nan
    tail = float(t.ppf((1 + level) / 2, count - 1))
    visible = (tail + float(t.ppf(POWER, count - 1))) * error
    if count < MANY:
        return float(mean - tail * error), float(mean + tail * error), visible
    low, high = np.quantile(_resampled(totals, sizes, seed), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), visible


def _resampled(totals: Floats, sizes: Floats, seed: int) -> Floats:
    """`RESAMPLES` means over groups drawn with replacement. Where many groups have equal totals and
    sizes, how many of each kind are drawn is multinomial, which is much less to draw."""
    kinds, counts = np.unique(np.stack([totals.round(12), sizes]), axis=1, return_counts=True)
    if len(counts) > len(totals) / _ALIKE:
        return resampled(totals[:, None], sizes[:, None], seed)[:, 0]
    generator = np.random.default_rng(seed)
    means = []
    for portion in _portions(len(counts)):
        drawn = generator.multinomial(len(totals), counts / counts.sum(), size=portion)
        means.append((drawn @ kinds[0]) / (drawn @ kinds[1]))
    return np.concatenate(means)


def _sign_flip(totals: Floats, seed: int) -> float:
    """How often the absolute sum is as large if each group's sign is a coin's."""
    sizes = np.abs(totals[totals != 0])
    if not len(sizes):
        return 1.0
    least = abs(totals.sum()) - TINY * len(sizes)
    if len(sizes) <= EXACT:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums - size, sums + size])
        return float((np.abs(sums) >= least).mean())
    kinds, counts = np.unique(sizes.round(12), return_counts=True)
    if len(kinds) > len(sizes) / _ALIKE:
        kinds, counts = sizes, np.ones(len(sizes), dtype=np.int64)
    generator = np.random.default_rng(seed)
    beyond = 0
    for portion in _portions(len(counts)):
        shape = (portion, len(counts))
        if counts.max() == 1:
            signs = 2 * generator.integers(0, 2, shape, dtype=np.int8) - 1
        else:
            signs = 2 * generator.binomial(counts, 0.5, size=shape) - counts
        beyond += int((np.abs(signs @ kinds) >= least).sum())
    return (1 + beyond) / (1 + RESAMPLES)


def _portions(width: int) -> Iterator[int]:
    """`RESAMPLES` in portions that stay small in memory at so many numbers each."""
    most = max(1, _CHUNK // width)
    for start in range(0, RESAMPLES, most):
        yield min(most, RESAMPLES - start)
