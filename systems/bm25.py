"""BM25 (Robertson and Zaragoza 2009) through bm25s, over "title text" of each document.

What it does not do: query expansion, fields, phrase search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.corpus import Corpus
from harness.data import Brief, HarnessError, Hit, Query
from systems.passages import words_of
from systems.ranking import Scores, corpus_hits, pool_hits

NUMBA_FROM = 20_000
"""Documents from which compiling (4 s, once a process) pays; below it numpy answers."""
TIES = 64
"""Documents looked at beyond the cut for ties across it."""


CHUNK = 20_000
"""Documents tokenised at a time."""


class BM25:
    """Options: k1, b and method as bm25s names them; stemmer (a Snowball language or ``none``);
    stop words (``en`` or ``none``); and ``idf``: whose statistics weigh the words, those of the
    ``corpus`` or those of each question's ``pool``."""

    independent = True
    index_options = ("k1", "b", "method", "stemmer", "stopwords")

    def __init__(
        self,
        k1: float = 1.5,
        b: float = 0.75,
        method: Literal["lucene", "robertson", "atire", "bm25l", "bm25+"] = "lucene",
        stemmer: str = "english",
        stopwords: Literal["en", "none"] = "en",
        idf: Literal["corpus", "pool"] = "corpus",
    ) -> None:
        if not (math.isfinite(k1) and k1 >= 0 and 0 <= b <= 1):
            raise HarnessError(f"bm25:k1={k1},b={b} is wrong.", "k1 is 0 or more, b in 0 to 1.")
        if stemmer != "none" and stemmer not in _languages():
            raise HarnessError(
                f"bm25:stemmer={stemmer} is wrong.", f"Write none or {', '.join(_languages())}."
            )
        self.settings: dict[str, Any] = {"k1": k1, "b": b, "method": method}
        self.stemmer = stemmer
        self.stopwords = stopwords
        self.idf = idf
        self.on_progress: Callable[[int, int], None] = lambda done, total: None  # noqa: ARG005

    def build(self, corpus: Corpus, folder: Path, brief: Brief) -> None:  # noqa: ARG002
        """Index the corpus; about 1.2 KB of memory a passage of 35 words."""
        index = self._index(self._told(corpus))
        if index is not None:
            index.save(folder, show_progress=False)

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:  # noqa: ARG002
        import bm25s

        self.corpus = corpus
        self.index = None
        if folder is not None and any(folder.iterdir()):
            self.index = bm25s.BM25.load(folder, mmap=True, load_corpus=False)
            for name in ("data", "indices", "indptr"):  # plain arrays are indexed faster
                self.index.scores[name] = np.asarray(self.index.scores[name])
        if self.index is not None and len(corpus) >= NUMBA_FROM:
            self.index.backend = "numba"
            self.index.activate_numba_scorer()

    def retrieve(self, queries: Sequence[Query], k: int) -> list[list[Hit]]:
        tokens = self._tokens([query.text for query in queries])
        if self.idf == "corpus" and all(query.pool is None for query in queries):
            return self._search(tokens, min(k, len(self.corpus)))
        return [self._one(query, words, k) for query, words in zip(queries, tokens, strict=True)]

    def _one(self, query: Query, words: list[str], k: int) -> list[Hit]:
        if query.pool is None:
            return self._whole(words, k)
        if self.idf == "corpus":
            places = self.corpus.positions(query.pool)
            scores = self._scores(self.index, words, len(self.corpus))[places]
        else:
            scores = self.judge(query.text, [words_of(self.corpus[each]) for each in query.pool])
        return pool_hits(query.pool, scores, k)

    def judge(self, question: str, texts: Sequence[str]) -> Scores:
        """The scores of texts by their own statistics, (n,); needs no index."""
        return self._scores(self._index(texts), self._tokens([question])[0], len(texts))

    def _whole(self, words: list[str], k: int) -> list[Hit]:
        """The ``k`` best of the corpus, ties broken by id."""
        return corpus_hits(self.corpus, self._scores(self.index, words, len(self.corpus)), k)

    def _search(self, tokens: list[list[str]], k: int) -> list[list[Hit]]:
        """The ``k`` best of the corpus for many questions at once."""
        if self.index is None or self.index.backend != "numba" or k == len(self.corpus):
            return [self._whole(words, k) for words in tokens]
        found: list[list[Hit]] = [[] for _ in tokens]
        worded = [number for number, words in enumerate(tokens) if words]
        # More than asked for: a tie across the cut must be broken by id, so all of it is needed;
        # where it reaches beyond the margin, the question is searched again.
        depth = min(k + TIES, len(self.corpus))
        places, scores = self.index.retrieve(
            [tokens[number] for number in worded], k=depth, show_progress=False, n_threads=0
        )
        for number, where, weight in zip(worded, places, scores, strict=True):
            if weight[k - 1] == weight[-1] and depth < len(self.corpus):
                continue
            order = np.lexsort((where, -weight))[:k]
            ids = self.corpus.ids_at(where[order])
            found[number] = list(map(Hit, ids, weight[order].tolist()))
        return [hits or self._whole(words, k) for hits, words in zip(found, tokens, strict=True)]

    def _told(self, corpus: Corpus) -> Iterator[str]:
        """The texts of a corpus; tells how far it is."""
        for number, document in enumerate(corpus, start=1):
            yield words_of(document)
            if number % CHUNK == 0:
                self.on_progress(number, len(corpus))

    def _index(self, texts: Iterable[str]) -> Any:
        """An index of these texts, or None if there is not a word in them."""
        import bm25s

        vocabulary: dict[str, int] = {}
        documents: list[list[int]] = []
        for chunk in iter(partial(_first, CHUNK, iter(texts)), []):
            found = bm25s.tokenize(chunk, **self._how(), show_progress=False)
            known = {n: vocabulary.setdefault(w, len(vocabulary)) for w, n in found.vocab.items()}
            documents.extend([known[number] for number in numbers] for numbers in found.ids)
        if not any(documents):
            return None
        index = bm25s.BM25(**self.settings, csc_backend="scipy")
        index.index((documents, vocabulary), show_progress=False)
        return index

    def _tokens(self, texts: list[str]) -> list[list[str]]:
        import bm25s

        tokens: list[list[str]] = bm25s.tokenize(
            texts, **self._how(), return_ids=False, show_progress=False
        )
        return tokens

    def _how(self) -> dict[str, Any]:
        stemmer = None
        if self.stemmer != "none":
            import Stemmer

            stemmer = Stemmer.Stemmer(self.stemmer)
        return {"stopwords": None if self.stopwords == "none" else "en", "stemmer": stemmer}

    @staticmethod
    def _scores(index: Any, words: list[str], size: int) -> Scores:
        """A score for each of the ``size`` documents; words no document has count nothing."""
        if index is None or not words:
            return np.zeros(size, np.float32)
        scores: Scores = index.get_scores(words)
        return scores


def _languages() -> list[str]:
    """Those of the Snowball stemmers."""
    import Stemmer

    return sorted(Stemmer.algorithms())


def _first(count: int, texts: Iterator[str]) -> list[str]:
    """The next texts, at most ``count``."""
    return list(islice(texts, count))
