"""Which documents clues speak for, and how that is fused with the ranking of an expander.

S_gen(d) = Σ_i w_i log(1 + TF(c_i, d)),   w_i = log(N / CF(c_i)) + log(N / DF(c_i))   (Eq. 4 to 6)
S(d)     = Σ_j w_j / rank_j(d),           w = 1 for clues, 2 for the expander         (Eq. 8)

N documents; CF occurrences of a clue, DF documents that have it; plain reciprocal ranks. (The
released code leaves out clues that occur more than 1,000 times; here all count.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log, log1p

import numpy as np

from systems.retrollm.ngrams import Ngrams
from systems.retrollm.texts import Shelf

KEPT = 5
"""Documents that clues bring in (k_gen)."""
WEIGHTS = (1.0, 2.0)
"""Of the ranking by clues and that of the expander."""


def weight(documents: int, occurrences: int, having: int) -> float:
    """w_i of a clue that occurs (Eq. 5)."""
    return log(documents / occurrences) + log(documents / having)


def scores(shelf: Shelf, clues: Iterable[Sequence[int]]) -> dict[int, float]:
    """S_gen of each document that has a clue (Eq. 4); each clue counts once."""
    found: dict[int, float] = {}
    for clue in dict.fromkeys(map(tuple, clues)):
        prefix = shelf.ngrams.prefix(clue)
        if not clue or not prefix.occurrences:
            continue
        parts, _ = shelf.ngrams.located(prefix)
        documents, times = np.unique(parts // 2, return_counts=True)
        worth = weight(shelf.documents, prefix.occurrences, len(documents))
        for document, often in zip(documents.tolist(), times.tolist(), strict=True):
            found[document] = found.get(document, 0.0) + worth * log1p(often)
    return found


def ranked(found: Mapping[int, float], most: int | None = None) -> list[int]:
    """Documents by falling score, equal ones by number."""
    return sorted(found, key=lambda document: (-found[document], document))[:most]


def fused(
    rankings: Iterable[Sequence[int]], weights: Sequence[float] = WEIGHTS
) -> dict[int, float]:
    """S of each ranked document (Eq. 8)."""
    found: dict[int, float] = {}
    for ranking, worth in zip(rankings, weights, strict=True):
        for rank, document in enumerate(ranking, 1):
            found[document] = found.get(document, 0.0) + worth / rank
    return found


def rarest(ngrams: Ngrams, words: Iterable[Sequence[int]], most: int) -> list[tuple[int, ...]]:
    """Of some words those that occur least often, of those that occur."""
    times = {word: ngrams.prefix(word).occurrences for word in map(tuple, words) if word}
    return sorted((word for word in times if times[word]), key=lambda word: times[word])[:most]
