"""The expander of RetroLLM: a ranking of documents, and further clue words, for a question.

The paper has SPLADE-v3's (Lassance et al. 2024, arXiv 2403.06789). Here it is one of

    bm25       BM25's ranking; the rarest words of the question
    prior      the ranking of the stage before; the same words
    trec:FILE  that of a TREC run; the same words
    MODEL      a SPLADE model in Hugging Face format: its ranking, and its words
    none       no ranking and no words
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.corpus import Corpus
from harness.data import Brief, HarnessError, Hit, Query, Reply
from systems.bm25 import BM25
from systems.external import Trec
from systems.models.hub import OneModel, library, load_model, load_tokenizer, padded
from systems.passages import words_of
from systems.ranking import corpus_hits, pool_hits

MOST_WORDS = 8
"""Clue words of a question."""
WORD = re.compile(r"\w+")
BATCH = 32
TOKENS = 512
"""Of a passage, that a SPLADE model reads."""


class Nothing:
    """No expander."""

    def files(self) -> Sequence[Path]:
        return ()

    def build(self, corpus: Corpus, folder: Path, brief: Brief) -> None:
        """An index of the corpus, if one is needed."""

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:
        """Get ready."""

    def rankings(self, queries: Sequence[Query], k: int) -> list[Sequence[Hit]]:  # noqa: ARG002
        """The best documents of each question, inside its pool if that is closed."""
        return [() for _ in queries]

    def words(self, queries: Sequence[Query]) -> list[list[str]]:
        """Words that may be clues, of each question."""
        return [[] for _ in queries]


class Words(Nothing):
    """The words of the question."""

    def words(self, queries: Sequence[Query]) -> list[list[str]]:
        return [WORD.findall(query.text) for query in queries]


class Prior(Words):
    """The ranking of the stage before."""

    def rankings(self, queries: Sequence[Query], k: int) -> list[Sequence[Hit]]:
        return [query.prior[:k] for query in queries]


class Lexical(Words):
    """BM25."""

    def __init__(self) -> None:
        self.bm25 = BM25()

    def build(self, corpus: Corpus, folder: Path, brief: Brief) -> None:
        self.bm25.build(corpus, folder, brief)

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:
        self.bm25.open(corpus, folder, brief)

    def rankings(self, queries: Sequence[Query], k: int) -> list[Sequence[Hit]]:
        return list(self.bm25.retrieve(queries, k))


class Outside(Words):
    """A TREC run; ``ranked`` is what the runner made of it, by our ids."""

    def __init__(self, file: Path) -> None:
        self.run = Trec(file)
        self.ranked: Mapping[str, Reply] = {}

    def files(self) -> Sequence[Path]:
        return self.run.files()

    def rankings(self, queries: Sequence[Query], k: int) -> list[Sequence[Hit]]:
        found: list[Sequence[Hit]] = []
        for query in queries:
            hits = self.ranked[query.id].hits if query.id in self.ranked else ()
            pool = None if query.pool is None else set(query.pool)
            found.append([hit for hit in hits if pool is None or hit.id in pool][:k])
        return found


class Splade(OneModel, Nothing):
    """A masked language model: a text is max over its tokens of log(1 + relu(scores)), a sparse
    vector over the vocabulary; a document scores its product with the question's."""

    takes = "ForMaskedLM"

    def __init__(self, model: str) -> None:
        self.model, self.revision = model, ""

    def build(self, corpus: Corpus, folder: Path, brief: Brief) -> None:
        sparse = library("scipy.sparse")
        self._load(brief)
        starts = range(0, len(corpus), BATCH)
        some = ([words_of(each) for each in corpus[start : start + BATCH]] for start in starts)
        parts = [sparse.csr_matrix(self._encoded(texts)) for texts in some]
        sparse.save_npz(folder / "vectors.npz", sparse.vstack(parts).tocsr())

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:
        assert folder is not None
        self.corpus = corpus
        self.vectors = library("scipy.sparse").load_npz(folder / "vectors.npz")
        self._load(brief)

    def _load(self, brief: Brief) -> None:
        self.tokenizer = load_tokenizer(self.folder())
        self.lm = load_model("AutoModelForMaskedLM", self.folder(), brief.device, brief.dtype)

    def rankings(self, queries: Sequence[Query], k: int) -> list[Sequence[Hit]]:
        found: list[Sequence[Hit]] = []
        for query, vector in zip(queries, self._questions(queries), strict=True):
            scores = np.asarray(self.vectors @ vector)
            if query.pool is None:
                found.append(corpus_hits(self.corpus, scores, k))
            else:
                found.append(pool_hits(query.pool, scores[self.corpus.positions(query.pool)], k))
        return found

    def words(self, queries: Sequence[Query]) -> list[list[str]]:
        """The heaviest whole words; pieces of words are left out."""
        found = []
        for vector in self._questions(queries):
            order = np.argsort(-vector, kind="stable")[: 4 * MOST_WORDS]
            said = self.tokenizer.convert_ids_to_tokens(order[vector[order] > 0].tolist())
            found.append([each for each in said if WORD.fullmatch(each)][:MOST_WORDS])
        return found

    def _questions(self, queries: Sequence[Query]) -> list[Any]:
        texts = [query.text for query in queries]
        starts = range(0, len(texts), BATCH)
        return [each for start in starts for each in self._encoded(texts[start : start + BATCH])]

    def _encoded(self, texts: Sequence[str]) -> Any:
        """Texts as vectors over the vocabulary, (n, v)."""
        torch = library("torch")
        read = self.tokenizer(list(texts), truncation=True, max_length=TOKENS)["input_ids"]
        ids, mask = padded(read, self.tokenizer.pad_token_id or 0, "right")
        device = self.lm.device
        with torch.inference_mode():
            scores = self.lm(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
            said = scores.float().relu().log1p() * mask.to(device)[..., None]
        return said.max(dim=1).values.cpu().numpy()


def expander(spelled: str) -> Nothing:
    """The expander of that spelling."""
    kind, _, rest = spelled.partition(":")
    if kind == "trec" and rest:
        return Outside(Path(rest))
    made = {"none": Nothing, "bm25": Lexical, "prior": Prior}
    if spelled not in made and "/" not in spelled and not Path(spelled).is_dir():
        raise HarnessError(
            f"there is no expander {spelled!r}.",
            "Write bm25, prior, trec:FILE, none, or a SPLADE model as ORG/NAME or a folder.",
        )
    return made[spelled]() if spelled in made else Splade(spelled)
