"""Which documents clues speak for, and how that is fused with the ranking of an expander.

S_gen(d) = Σ_i w_i log(1 + TF(c_i, d)),   w_i = log(N / CF(c_i)) + log(N / DF(c_i))   (Eq. 4 to 6)
S(d)     = Σ_j w_j / rank_j(d),           w = 1 for clues, 2 for the expander         (Eq. 8)

N documents; CF occurrences of a clue, DF documents that have it; plain reciprocal ranks. (The
released code leaves out clues that occur more than 1,000 times; here all count.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import NamedTuple

import numpy as np

from systems.ranking import Scores, top
from systems.retrollm.ngrams import Ints, Ngrams
from systems.retrollm.texts import Shelf

KEPT = 5
"""Documents that clues bring in (k_gen)."""
WEIGHTS = (1.0, 2.0)
"""Of the ranking by clues and that of the expander."""


class Scored(NamedTuple):
    """Documents in order, and the score of each."""

    documents: Ints
    scores: Scores


def weight(documents: int, occurrences: int, having: int) -> float:
    """w_i of a clue that occurs (Eq. 5)."""
    return log(documents / occurrences) + log(documents / having)


def scores(shelf: Shelf, clues: Iterable[Sequence[int]]) -> Scored:
    """S_gen of the documents that have a clue (Eq. 4); each clue counts once."""
    found: list[Ints] = [np.zeros(0, np.int64)]
    worth = [np.zeros(0)]
    for clue in dict.fromkeys(map(tuple, clues)):
        prefix = shelf.ngrams.prefix(clue)
        if not clue or not prefix.occurrences:
            continue
        parts, _ = shelf.ngrams.located(prefix)
        documents, times = np.unique(parts // 2, return_counts=True)
        found.append(documents)
        alone = weight(shelf.documents, prefix.occurrences, len(documents))
        worth.append(alone * np.log1p(times))
    documents, which = np.unique(np.concatenate(found), return_inverse=True)
    summed = np.bincount(which, np.concatenate(worth), len(documents))
    return Scored(documents, summed.astype(np.float64))


def best(scored: Scored, most: int) -> list[int]:
    """The documents of the highest scores, equal ones by number."""
    order: list[int] = scored.documents[top(scored.scores, most)].tolist()
    return order


def ranked(found: Mapping[int, float]) -> list[int]:
    """Documents by falling score, equal ones by number."""
    return sorted(found, key=lambda document: (-found[document], document))


def fused(
    rankings: Iterable[Sequence[int]], weights: Sequence[float] = WEIGHTS
) -> dict[int, float]:
    """S of each ranked document (Eq. 8)."""
    found: dict[int, float] = {}
    for ranking, worth in zip(rankings, weights, strict=True):
        for rank, document in enumerate(ranking, 1):
            found[document] = found.get(document, 0.0) + worth / rank
    return found


def rarest(
    ngrams: Ngrams, words: Iterable[Sequence[Sequence[int]]], most: int
) -> list[tuple[int, ...]]:
    """Of some words, each in several forms, those that occur least often, and of each the forms
    that occur."""
    found: dict[tuple[tuple[int, ...], ...], int] = {}
    for forms in words:
        there = tuple(form for form in dict.fromkeys(map(tuple, forms)) if form)
        times = [ngrams.prefix(form).occurrences for form in there]
        kept = tuple(form for form, often in zip(there, times, strict=True) if often)
        if kept:
            found[kept] = sum(times)
    return [form for forms in sorted(found, key=lambda each: found[each])[:most] for form in forms]
