"""bm25 against a slow BM25 of its own, and its ties, pools and edges."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import bm25s
import numpy as np
import pytest
import Stemmer
from hypothesis import given, settings
from hypothesis import strategies as st

import systems.bm25 as module
from harness.corpus import Corpus, write_corpus
from harness.data import Brief, Document, Query
from systems.bm25 import BM25
from systems.ranking import top

TEXTS = [
    "the red fox jumps over the lazy dog",
    "a red door and a blue door",
    "foxes live in dens near rivers",
    "blue rivers run deep",
    "dogs and foxes are red",
    "nothing of the kind",
]


def opened(tmp_path: Path, texts: list[str], **options) -> tuple[BM25, Corpus]:
    (tmp_path / "c").mkdir(exist_ok=True)
    write_corpus([Document("", text) for text in texts], tmp_path / "c", tmp_path / "natives")
    corpus, system = Corpus(tmp_path / "c"), BM25(**options)
    (tmp_path / "i").mkdir(exist_ok=True)
    system.build(corpus, tmp_path / "i", Brief())
    system.open(corpus, tmp_path / "i", Brief())
    return system, corpus


def words(text: str) -> list[str]:
    stop = set(bm25s.stopwords.STOPWORDS_EN)
    kept = [w for w in text.lower().split() if len(w) > 1 and w not in stop]
    return Stemmer.Stemmer("english").stemWords(kept)


def slow_bm25(query: str, texts: list[str], k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Lucene's BM25, straight from its formula."""
    bags = [Counter(words(text)) for text in texts]
    mean = sum(sum(bag.values()) for bag in bags) / len(bags)
    scores = []
    for bag in bags:
        score = 0.0
        for word in words(query):
            df = sum(word in other for other in bags)
            idf = math.log(1 + (len(bags) - df + 0.5) / (df + 0.5))
            tf = bag[word]
            score += idf * tf / (tf + k1 * (1 - b + b * sum(bag.values()) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize("options", [{}, {"k1": 0.9, "b": 0.4}])
@pytest.mark.parametrize("query", ["red fox", "blue rivers and doors", "dens"])
def test_scores_are_lucene_bm25(tmp_path: Path, query: str, options: dict[str, float]) -> None:
    system, corpus = opened(tmp_path, TEXTS, **options)
    texts = [document.text for document in corpus]
    expected = dict(zip(corpus.ids, slow_bm25(query, texts, **options), strict=True))
    (hits,) = system.retrieve([Query("q", query)], 6)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-5)


def test_idf_of_the_pool_is_bm25_over_the_pool_alone(tmp_path: Path) -> None:
    system, corpus = opened(tmp_path, TEXTS, idf="pool")
    pool = tuple(d.id for d in corpus if "red" in d.text)
    expected = slow_bm25("red fox", [corpus[d].text for d in pool])
    (hits,) = system.retrieve([Query("q", "red fox", pool)], 9)
    assert {h.id: h.score for h in hits} == pytest.approx(
        dict(zip(pool, expected, strict=True)), abs=1e-5
    )
    whole, _ = opened(tmp_path, TEXTS)
    (other,) = whole.retrieve([Query("q", "red fox", pool)], 9)
    assert [h.score for h in other] != pytest.approx([h.score for h in hits], abs=1e-3)


def test_tokenising_in_chunks_changes_no_score(tmp_path: Path, monkeypatch) -> None:
    queries = [Query(str(n), text) for n, text in enumerate(TEXTS)]
    whole, _ = opened(tmp_path, TEXTS)
    expected = whole.retrieve(queries, 6)
    monkeypatch.setattr(module, "CHUNK", 1)
    chunked, _ = opened(tmp_path, TEXTS)
    assert chunked.retrieve(queries, 6) == expected


def test_every_document_of_a_pool_is_ranked_and_zeros_stand_in_id_order(tmp_path: Path) -> None:
    system, corpus = opened(tmp_path, TEXTS)
    pool = tuple(corpus.ids)
    (hits,) = system.retrieve([Query("q", "zebra", pool)], 99)
    assert [h.id for h in hits] == list(pool)
    assert {h.score for h in hits} == {0.0}


def test_numba_and_numpy_rank_alike_ties_across_the_cut_too(tmp_path: Path, monkeypatch) -> None:
    texts = [f"{TEXTS[i % 6]} x{i // 12}" for i in range(60)]
    queries = [Query(str(i), text) for i, text in enumerate([*TEXTS, "red", "zebra", ""])]
    plain, _ = opened(tmp_path, texts)
    expected = {k: plain.retrieve(queries, k) for k in (1, 7, 30, 59, 60, 100)}
    monkeypatch.setattr(module, "NUMBA_FROM", 0)
    compiled, _ = opened(tmp_path, texts)
    assert compiled.index.backend == "numba"
    for margin in (1, 3, 64):
        monkeypatch.setattr(module, "TIES", margin)
        for k, hits in expected.items():
            assert compiled.retrieve(queries, k) == hits
            assert all(len(each) == min(k, 30) for each in hits)


@pytest.mark.parametrize("texts", [["one document"], ["the"], ["", "the of"]])
def test_tiny_and_wordless_corpora_are_ranked(tmp_path: Path, texts: list[str]) -> None:
    system, corpus = opened(tmp_path, texts)
    (hits,) = system.retrieve([Query("q", "one")], 5)
    assert sorted(h.id for h in hits) == corpus.ids


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.5, -1.0]), min_size=1, max_size=30), st.integers(1, 35)
)
def test_top_is_a_sort_by_score_then_place(scores: list[float], k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:k]
    assert top(np.array(scores), k).tolist() == expected
