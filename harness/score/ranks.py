"""Rank intervals: which ranks of a system the data does not exclude.

Systems are compared in pairs on the same questions (`harness.score.paired`, sign-flip over groups).
A system's interval runs from 1 + how many are significantly better to N - how many are
significantly worse.

Whether one is better than another is decided by Holm's procedure over all pairs of those systems
whose mean is at least that of the worse of the two; for the last of a table these are all pairs.
Holm over all pairs for everybody would let a system added at the bottom take significance from
pairs above it, and so lift others: flooding a table would pay. As it is, a new system changes no
decision between systems above it. So it improves neither end of the interval of any system with a
higher mean, and the worse end of nobody's; a system below it pays for one more comparison. Each
family is held at 5 %: the chance that any system is wrongly placed below one of those above it is
at most that for each system, and for the whole table it is not bounded by it.

Many pairs are told apart only by p-values far below those of 10,000 flips: how many are drawn
follows from the number of pairs (`harness.score.paired.draws_for`); most pairs need few of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from harness.score.intervals import TINY, Floats
from harness.score.paired import coded, draws_for, holm, sign_flip

ALPHA = 0.05


class Ranks(NamedTuple):
    """The best and the worst rank that a system may have, 1 being the first."""

    best: int
    worst: int

    def __str__(self) -> str:
        return f"{self.best}" if self.best == self.worst else f"{self.best}–{self.worst}"


def rank_intervals(values: Mapping[str, Floats], groups: Sequence[str]) -> dict[str, Ranks]:
    """The ranks of systems by their scores of one metric; in no case does their order matter.

    values: by system, (questions,), of the same questions in one order; NaN where there is none
    groups: the resampling unit of each question, (questions,)
    """
    codes = coded(groups)
    means = {name: float(np.nanmean(each)) for name, each in values.items()}
    names = sorted(values, key=lambda name: (-means[name], name))
    pairs = list(combinations(names, 2))
    draws = draws_for(len(pairs), ALPHA)
    ps = {
        (upper, lower): sign_flip(values[lower], values[upper], codes, draws=draws)
        for upper, lower in pairs
    }
    better: dict[str, int] = dict.fromkeys(names, 0)
    worse: dict[str, int] = dict.fromkeys(names, 0)
    for lower in names:
        above = [name for name in names if means[name] >= means[lower] - TINY]
        family = list(combinations(above, 2))
        for (upper, other), p in zip(family, holm([ps[each] for each in family]), strict=True):
            if other == lower and p <= ALPHA:  # with equal means p is 1
                better[lower] += 1
                worse[upper] += 1
    return {name: Ranks(1 + better[name], len(names) - worse[name]) for name in names}
