"""The difference of two systems on the same questions, and whether it is more than noise.

The unit is the group (questions that share documents or a world), as in `harness.score.intervals`:
the mean is over questions, resampled and flipped are groups.

Interval: from `MANY` groups on, percentiles of the cluster bootstrap. Below, mean ± t · SE with
the jackknife's SE over groups, and Student's t with the degrees of freedom of a variance that was
estimated from values of that kurtosis (`_freedom`): if one question of 200 differs, that tells
little of how far the mean may be off. On skewed differences of EM in few groups percentile, BCa and
bootstrap-t intervals of nominal 95 % cover 60 to 90 %, this one 93 to 97
(`python benchmarks/compare.py --coverage`). Where all groups differ by the very same (by nothing,
say), the exact bound of `harness.score.intervals` on the share of groups that do not:
1 - .05^(1 / groups) of them may differ by as much as can be, -1 or 1.
p: sign-flip test of no difference, two-sided: all flips of the groups' totals up to `EXACT` groups
that differ at all, else drawn ones (Fisher 1935; Phipson and Smyth 2010 for the +1). So many flips
give no p below 1 / (1 + draws), so that many comparisons need many: `draws_for`. `RESAMPLES` are
drawn first, and more only until `ENOUGH` of them are as far from 0 as what was seen (Besag and
Clifford, Biometrika 1991), or while no bound proves that the exact p is small enough (`_bound`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.score.intervals import RESAMPLES, TINY, Floats, resampled

MANY = 300
"""Groups from which percentiles of resampled means cover what they say."""
EXACT = 20
"""Groups up to which all 2^n flips are counted."""
POWER = 0.8
ENOUGH = 20
"""So many flips as far from 0 as what was seen tell p well: its standard error is a fifth of it."""
MOST = 10_000_000
"""Flips that are drawn at most."""
_ALIKE = 20
"""So many groups a kind, or kinds are not worth the sorting."""
_DEAR = 200
"""A number of equal signs costs as much to draw as so many single ones."""
_CHUNK = 2_000_000
"""Numbers drawn at a time."""
Codes = npt.NDArray[np.int64]
Groups = Sequence[str] | Codes
"""The resampling unit of each question by name, or as `coded` numbers."""


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
    base: Floats,
    new: Floats,
    groups: Groups,
    seed: int = 0,
    level: float = 0.95,
    draws: int = RESAMPLES,
) -> Paired:
    """Compare two systems' scores of one metric, question by question.

    base, new: (questions,) in 0..1, of the same questions; one that is NaN in either is left out
    groups:    the resampling unit of each question, (questions,)
    draws:     flips at most; see `draws_for`
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
        _sign_flip(totals, seed, draws),
        len(apart),
        count,
        int((apart > 0).sum()),
        int((apart == 0).sum()),
        int((apart < 0).sum()),
        visible,
    )


def sign_flip(
    base: Floats, new: Floats, groups: Groups, seed: int = 0, draws: int = RESAMPLES
) -> float:
    """The p of `paired` alone, without its resampling."""
    return _sign_flip(_grouped(base, new, groups)[1], seed, draws)


def draws_for(comparisons: int, alpha: float) -> int:
    """How many flips Holm needs over so many comparisons at level ``alpha``; at most `MOST`.

    A pair whose flips are used up before `ENOUGH` of them are as far has then a p below alpha /
    comparisons, so that more flips would change no decision. The cap costs nothing up to
    MOST · alpha / (ENOUGH + 1) comparisons (23,809 at 5 %: all pairs of 218 systems). Beyond, p is
    coarser, never too small; from MOST · alpha (500,000) on the strictest can reject nothing.
    """
    return min(MOST, max(RESAMPLES, math.ceil((ENOUGH + 1) * comparisons / alpha)))


def coded(groups: Sequence[str]) -> Codes:
    """Groups as numbers, which are sorted faster: for those who compare many pairs."""
    return np.unique(np.asarray(groups, dtype=object), return_inverse=True)[1]


def _grouped(base: Floats, new: Floats, groups: Groups) -> tuple[Floats, Floats, Floats]:
    """The difference of each question that has both scores, and the total and size of its group."""
    there = ~(np.isnan(base) | np.isnan(new))
    apart = (new - base)[there]
    if not len(apart):
        raise ValueError("no question has a score of both")
    apart[np.abs(apart) < TINY] = 0.0
    codes = groups if isinstance(groups, np.ndarray) else coded(groups)
    codes = np.unique(codes[there], return_inverse=True)[1]
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
    pulls = mean - (totals.sum() - totals) / (sizes.sum() - sizes)
    error = math.sqrt((count - 1) / count * float((pulls**2).sum()))
    if error <= TINY:
        return math.nan, math.nan, math.nan
    freedom = _freedom(pulls)
    tail = float(t.ppf((1 + level) / 2, freedom))
    visible = (tail + float(t.ppf(POWER, freedom))) * error
    if count < MANY:
        return float(mean - tail * error), float(mean + tail * error), visible
    low, high = np.quantile(_resampled(totals, sizes, seed), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), visible


def _freedom(pulls: Floats) -> float:
    """The degrees of freedom of a chi-square whose relative variance is that of the sample variance
    of such values, 2 / (n - 1) + kurtosis / n (matched moments, as Satterthwaite 1946); at least
    1 and at most n - 1. pulls: how much each group pulls the mean, (groups,)."""
    count = len(pulls)
    kurtosis = float((pulls**4).mean() / (pulls**2).mean() ** 2) - 3
    return max(1.0, 2 / (2 / (count - 1) + max(0.0, kurtosis) / count))


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


def _sign_flip(totals: Floats, seed: int, draws: int) -> float:
    """How often the absolute sum is as large if each group's sign is a coin's."""
    sizes = np.abs(totals[totals != 0])
    if not len(sizes):
        return 1.0
    least = max(abs(totals.sum()) - TINY * len(sizes), 0.0)
    if len(sizes) <= EXACT:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums - size, sums + size])
        return float((np.abs(sums) >= least).mean())
    finest, bound = 1 / (1 + draws), _bound(sizes, least)
    if bound <= finest:
        return finest
    drawn = beyond = 0
    for sums in _flipped(sizes, seed):
        drawn += len(sums)
        beyond += int((np.abs(sums) >= least).sum())
        told = beyond >= ENOUGH or bound <= ENOUGH * finest
        if drawn >= draws or (told and drawn >= RESAMPLES):
            break
    return min(bound, (1 + beyond) / (1 + drawn))


def _bound(sizes: Floats, least: float) -> float:
    """What the share of flips that are as far cannot exceed: about 3.18 times that of a normal law
    of the same variance (Bentkus and Dzindzalieta, Bernoulli 2015)."""
    return math.erfc(least / math.sqrt(2 * (sizes**2).sum())) / (2 * math.erfc(1))


def _flipped(sizes: Floats, seed: int) -> Iterator[Floats]:
    """Sums of sizes under signs drawn by coins, in blocks, without end.

    Of equal sizes it is drawn how many are positive. Else a byte is drawn for eight of them, and
    what they add up to under its bits is looked up.
    """
    generator = np.random.default_rng(seed)
    kinds, counts = np.unique(sizes.round(12), return_counts=True)
    alike = len(kinds) <= len(sizes) / _DEAR
    bits = 2.0 * (np.arange(256) >> np.arange(8)[:, None] & 1) - 1
    sums = np.pad(sizes, (0, -len(sizes) % 8)).reshape(-1, 8) @ bits
    while True:
        for portion in _portions(len(kinds) if alike else len(sums)):
            if alike:
                heads = generator.binomial(counts, 0.5, size=(portion, len(kinds)))
                yield (2 * heads - counts) @ kinds
                continue
            flipped = np.zeros(portion)
            for of_eight, drawn in zip(
                sums, generator.integers(0, 256, (len(sums), portion), np.uint8), strict=True
            ):
                flipped += of_eight.take(drawn)
            yield flipped


def _portions(width: int) -> Iterator[int]:
    """`RESAMPLES` in portions that stay small in memory at so many numbers each."""
    most = max(1, _CHUNK // width)
    for start in range(0, RESAMPLES, most):
        yield min(most, RESAMPLES - start)
