"""The n-grams of a corpus against brute force: what follows, how often, where, and never across
the end of a document."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import HarnessError
from systems.retrollm import ngrams
from systems.retrollm.ngrams import Ngrams


class Brute:
    """Every n-gram of up to seven tokens, counted one by one."""

    def __init__(self, documents: Sequence[Sequence[int]], most: int = 7) -> None:
        self.following: dict[tuple[int, ...], Counter[int]] = {}
        self.places: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for number, document in enumerate(documents):
            for start in range(len(document)):
                for size in range(most + 1):
                    if start + size > len(document):
                        break
                    gram = tuple(document[start : start + size])
                    self.places.setdefault(gram, []).append((number, start))
                    if start + size < len(document):
                        then = self.following.setdefault(gram, Counter())
                        then[document[start + size]] += 1


def corpus(seed: int, documents: int, longest: int, words: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [
        [min(int(rng.expovariate(0.2)), words - 1) for _ in range(rng.randint(0, longest))]
        for _ in range(documents)
    ]


def check(index: Ngrams, brute: Brute, gram: Sequence[int]) -> None:
    prefix = index.prefix(gram)
    right = brute.following.get(tuple(gram), Counter())
    found = index.following(prefix)
    assert dict(zip(found.ids.tolist(), found.counts.tolist(), strict=True)) == dict(right)
    assert found.ids.tolist() == sorted(found.ids.tolist())
    if gram:
        places = brute.places.get(tuple(gram), [])
        assert prefix.occurrences == len(places)
        numbers, starts = index.located(prefix)
        assert list(zip(numbers.tolist(), starts.tolist(), strict=True)) == places


@pytest.mark.parametrize("words", [4, 50, 100_000])
def test_a_hundred_thousand_prefixes_equal_brute_force(words: int) -> None:
    """Half of them taken from the corpus, a fifth of these with another last token."""
    documents = corpus(words, 300, 40, words)
    index, brute = Ngrams.of(documents), Brute(documents)
    rng = random.Random(words)
    long = [each for each in documents if each]
    for _ in range(33_400):
        if rng.random() < 0.5:
            document = rng.choice(long)
            start = rng.randrange(len(document))
            gram = document[start : start + rng.randint(1, 6)]
            if rng.random() < 0.2:
                gram[-1] = rng.randrange(words)
        else:
            gram = [min(int(rng.expovariate(0.2)), words) for _ in range(rng.randint(0, 4))]
        check(index, brute, gram)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=6),
    st.lists(st.integers(0, 4), max_size=4),
)
def test_any_corpus(documents: list[list[int]], gram: list[int]) -> None:
    check(Ngrams.of(documents), Brute(documents), gram)


def test_no_ngram_goes_over_the_end_of_a_document() -> None:
    index = Ngrams.of([[1, 2], [3, 1], [2]])
    assert index.prefix([1, 2]).occurrences == 1
    assert index.prefix([2, 3]).occurrences == 0
    assert index.following(index.prefix([2])).ids.tolist() == []
    assert index.following(index.prefix([1, 2])).ids.tolist() == []
    assert index.prefix([-1]).occurrences == 0 and index.prefix([1, -1]).occurrences == 0
    assert index.longer(index.prefix([9]), 1).occurrences == 0


def test_a_part_of_the_corpus_is_as_if_it_were_all() -> None:
    documents = corpus(1, 60, 20, 9)
    index = Ngrams.of(documents)
    for numbers in ([3, 17, 40], [5], list(range(60))):
        part = index.subset(numbers)
        chosen = [documents[each] for each in numbers]
        assert part.documents == len(numbers)
        assert [part.document(each) for each in range(len(numbers))] == chosen
        brute = Brute(chosen)
        for gram in ([], [0], [1, 0], [2, 1, 0], [8]):
            check(part, brute, gram)


def test_it_is_mapped_as_it_was_written(tmp_path: Path) -> None:
    documents = corpus(2, 50, 30, 12)
    made = Ngrams.of(documents)
    made.save(tmp_path)
    again = Ngrams.open(tmp_path)
    assert isinstance(again.tokens, np.memmap) and isinstance(again.suffixes, np.memmap)
    brute = Brute(documents)
    for gram in ([], [0], [0, 0], [1, 0, 2], [11]):
        check(again, brute, gram)
    (tmp_path / "spans.npy").unlink()
    with pytest.raises(HarnessError, match="holds no n-grams"):
        Ngrams.open(tmp_path)


def test_no_documents_and_empty_ones() -> None:
    for documents in ([], [[]], [[], []]):
        index = Ngrams.of(documents)
        assert index.documents == len(documents)
        assert index.following(index.prefix([])).ids.tolist() == []
        assert index.prefix([0]).occurrences == 0


def test_too_many_tokens_are_refused_with_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams, "MOST", 10)
    with pytest.raises(HarnessError, match=r"more tokens than one index holds .10, of 80 bytes"):
        Ngrams.of([[1, 2, 3, 4, 5], [6, 7, 8, 9, 1]])


def test_ids_below_nought_are_refused() -> None:
    with pytest.raises(ValueError, match="from 0 on"):
        Ngrams.of([[1, -3]])
