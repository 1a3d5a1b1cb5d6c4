"""From an array of scores to hits, ties broken the one way all adapters do: by id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.corpus import Corpus
from harness.data import Document, HarnessError, Hit, Query, Reply

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


class Judged(NamedTuple):
    """The score of a question and a passage, and how many tokens were read for it."""

    score: float
    tokens: int


def reranked(
    corpus: Corpus,
    queries: Sequence[Query],
    k: int,
    judge: Callable[[Sequence[tuple[str, Document]]], Sequence[Judged]],
) -> list[Reply]:
    """The best ``k`` of each question's pool by what ``judge`` says of question and passage, and
    how many tokens it read. Equal passages are judged once, so that they score equally."""
    pools = [sorted(_pool(query)) for query in queries]
    pairs = [
        (query.text, replace(corpus[each], id=""))
        for query, pool in zip(queries, pools, strict=True)
        for each in pool
    ]
    once = list(dict.fromkeys(pairs))
    judged = dict(zip(once, judge(once), strict=True))
    found, rest = [], iter(pairs)
    for pool in pools:
        here = [judged[pair] for pair in islice(rest, len(pool))]
        hits = pool_hits(pool, np.array([each.score for each in here]), k)
        tokens = sum(each.tokens for each in here)
        found.append(Reply(hits=tuple(hits), counts={"prompt_tokens": tokens}))
    return found


def _pool(query: Query) -> Sequence[str]:
    if query.pool is None:
        raise HarnessError("a reranker was given no pool.", "Put a retriever before it.")
    return query.pool
