"""BM25 over the passages of a mini world, in whole numbers: the same order on every machine.

The textbook form (k1 1.2, b 0.75, idf as Lucene's) over the lower-case words of title and text.
Postings are kept for the words of the questions alone, so that a million passages go by as a
stream. Ties are broken by a scrambled passage number, which says nothing about what is in it.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from math import log

import numpy as np
from numpy.typing import NDArray

from tasks.mini.questions import Question
from tasks.mini.world import Passage, World

SCALE = 1024
"""What an inverse document frequency, and the weight of a word in a passage, are rounded to."""
SCRAMBLE = 2_654_435_761
_WORD = re.compile(r"\w+")


def terms(text: str) -> list[str]:
    """The words of a text, lower case."""
    return _WORD.findall(text.lower())


class Index:
    """BM25 scores of passages, which are numbered as they come.

    wanted: the words to keep postings of; None for all
    """

    def __init__(self, passages: Iterable[Passage], wanted: Collection[str] | None = None) -> None:
        self.postings: dict[str, array[int]] = {}
        lengths = array("q")
        for number, passage in enumerate(passages):
            found = terms(f"{passage.title} {passage.text}")
            lengths.append(len(found))
            for word in found:
                if wanted is None or word in wanted:
                    self.postings.setdefault(word, array("q")).append(number)
        self.lengths = np.frombuffer(lengths, np.int64)
        self.total = int(self.lengths.sum())
        self.weights: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self.order = np.arange(len(lengths), dtype=np.int64) * SCRAMBLE % 2**32

    def best(self, text: str, count: int) -> list[int]:
        """The ``count`` passages of the highest scores, best first."""
        scores = np.zeros(len(self.lengths), np.int64)
        for word in sorted(set(terms(text)) & self.postings.keys()):
            numbers, weights = self._weighted(word)
            scores[numbers] += weights
        count = min(count, len(scores))
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        found = np.flatnonzero(scores >= least)
        best = np.lexsort((self.order[found], -scores[found]))[:count]
        return [int(number) for number in found[best]]

    def _weighted(self, word: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The passages that have a word, and what it adds to their scores."""
        if word not in self.weights:
            posted = np.frombuffer(self.postings[word], np.int64)
            numbers, often = np.unique(posted, return_counts=True)
            size, total = len(self.lengths), self.total
            idf = int(SCALE * log(1 + (size - len(numbers) + 0.5) / (len(numbers) + 0.5)))
            # tf (k1 + 1) / (tf + k1 (1 - b + b length / mean)), times 10 total above and below
            below = 10 * often * total + 3 * total + 9 * size * self.lengths[numbers]
            self.weights[word] = numbers, idf * (22 * SCALE * often * total // below)
        return self.weights[word]

    def near(self, question: Question, count: int) -> list[int]:
        """The ``count`` nearest to each of its `Question.mined` texts in turn, without those that
        it must hold."""
        held = set(held_by(question))
        lists = [self.best(text, count + len(held)) for text in question.mined]
        turns = chain.from_iterable(zip(*lists, strict=True))
        return list(dict.fromkeys(each for each in turns if each not in held))[:count]


def held_by(question: Question) -> tuple[int, ...]:
    """The passages that go with a question: those of its answer, or, if it has none, those about
    its subject."""
    return question.gold or question.about


def pools(world: World, questions: Sequence[Question], size: int) -> list[list[int]]:
    """For each question ``size`` passages, by number, in a drawn order: those that go with it, and
    the nearest to it by BM25. One pass over the world; its long passages are left out, which no
    candidate list of ten is meant for."""
    short = map(world.passage, range(world.asked))
    texts = chain.from_iterable(question.mined for question in questions)
    index = Index(short, {word for text in texts for word in terms(text)})
    found = []
    for question in questions:
        held = held_by(question)
        pool = [*held, *index.near(question, size - len(held))]
        found.append(world.draws(f"pool {question.id}").some(pool, size))
    return found
