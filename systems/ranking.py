"""From an array of scores to hits, ties broken the one way all adapters do: by id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.corpus import Corpus
from harness.data import Hit

Scores = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.integer[Any]]


def top(scores: Scores, k: int) -> Places:
    """Places of the ``k`` best of ``scores`` (n,), by (−score, place)."""
    if k < len(scores):
        cut = np.partition(scores, len(scores) - k)[len(scores) - k]
        places = np.flatnonzero(scores >= cut)
    else:
        places = np.arange(len(scores))
    best: Places = places[np.argsort(-scores[places], kind="stable")[:k]]
    return best


def corpus_hits(corpus: Corpus, scores: Scores, k: int) -> list[Hit]:
    """The best ``k`` documents of a corpus from a score for each, (len(corpus),)."""
    places = top(scores, k)
    return list(map(Hit, corpus.ids_at(places), scores[places].tolist()))


def pool_hits(pool: Sequence[str], scores: Scores, k: int) -> list[Hit]:
    """The best ``k`` documents of a pool (in id order) from a score for each, (len(pool),)."""
    places = top(scores, k)
    return [Hit(pool[place], float(scores[place])) for place in places.tolist()]
