"""Dense retrieval as E5 (Wang et al. 2022, arXiv 2212.03533): cosine of question and passage.

Any Hugging Face encoder serves, with its own prefixes and pooling. Search is exact.

What it does not do: approximate search, late interaction, training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.corpus import Corpus
from harness.data import Brief, HarnessError, Hit, Query
from systems.models.encoder import Encoder, Pooling, Vectors
from systems.models.hub import OneModel, check_sizes, library, read_config
from systems.passages import words_of
from systems.ranking import pool_hits
from systems.sizes import readable

CHUNK = 2048
"""Documents encoded between two writes to the index."""

Stored = npt.NDArray[np.float16]
Scores = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


class E5(OneModel):
    """Options: the model (shipped, on the hub or a folder) and its ``revision``; what stands before
    questions and passages (``none``: nothing); ``pooling`` over tokens (mean, last, cls);
    ``normalize``; ``max_length`` in tokens; ``batch_size`` of texts; and ``block``: how many
    documents are searched at a time."""

    takes = "Model"
    index_options = ("model", "revision", "passage_prefix", "pooling", "normalize", "max_length")

    def __init__(
        self,
        model: str = "mini-e5",
        query_prefix: str = "query: ",
        passage_prefix: str = "passage: ",
        pooling: Pooling = "mean",
        normalize: bool = True,
        max_length: int = 512,
        batch_size: int = 32,
        block: int = 65536,
        revision: str = "",
    ) -> None:
        check_sizes("e5", max_length=max_length, batch_size=batch_size, block=block)
        self.model, self.revision = model, revision
        self.query_prefix = "" if query_prefix == "none" else query_prefix
        self.passage_prefix = "" if passage_prefix == "none" else passage_prefix
        self.how: dict[str, Any] = {"pooling": pooling, "normalize": normalize}
        self.how |= {"max_length": max_length, "batch_size": batch_size}
        self.block = block
        self.on_progress: Callable[[int, int], None] | None = None
        """Called while building with the number of documents encoded so far, and of all."""

    def needs(self, documents: int) -> str:
        """The bytes of its index."""
        size = int(read_config(self.folder()).get("hidden_size", 0))
        return f"an index of {readable(2 * size * documents)} on disk" if size else "an index"

    def build(self, corpus: Corpus, folder: Path, brief: Brief) -> None:
        """Encode the corpus into ``vectors.npy``, (len(corpus), size) float16, chunk by chunk."""
        encoder = self._encoder(brief)
        shape = (len(corpus), encoder.size)
        vectors = np.lib.format.open_memmap(
            folder / "vectors.npy", mode="w+", dtype=np.float16, shape=shape
        )
        for start in range(0, len(corpus), CHUNK):
            texts = [self.passage_prefix + words_of(d) for d in corpus[start : start + CHUNK]]
            end = start + len(texts)
            vectors[start:end] = encoder.encode(texts)
            if self.on_progress is not None:
                self.on_progress(end, len(corpus))
        vectors.flush()

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:
        if folder is None:
            raise HarnessError("e5 was opened without an index.", "Call build first.")
        self.corpus = corpus
        self.encoder = self._encoder(brief)
        self.vectors: Stored = np.load(folder / "vectors.npy", mmap_mode="r")

    def _encoder(self, brief: Brief) -> Encoder:
        return Encoder(self.folder(), **self.how, device=brief.device, dtype=brief.dtype)

    def retrieve(self, queries: Sequence[Query], k: int) -> list[list[Hit]]:
        encoded = self.encoder.encode([self.query_prefix + query.text for query in queries])
        found: list[list[Hit]] = [[]] * len(queries)
        wide = [place for place, query in enumerate(queries) if query.pool is None]
        for place, best in zip(wide, self.search(encoded[wide], k), strict=True):
            ids = map(self.corpus.id, best.places.tolist())
            found[place] = list(map(Hit, ids, best.scores.tolist()))
        for place, query in enumerate(queries):
            if query.pool is not None:
                pool = sorted(query.pool)
                vectors = self.vectors[self.corpus.positions(pool)]
                found[place] = pool_hits(pool, products(vectors, encoded[place]), k)
        return found

    def search(self, queries: Vectors, k: int) -> list[Best]:
        """The ``k`` best of the corpus for each query (n, size), a block at a time."""
        best = [Best(np.zeros(0, np.int64), np.zeros(0))] * len(queries)
        if not len(queries):
            return best
        torch, device = library("torch"), self.encoder.model.device
        sides = torch.from_numpy(queries).to(device).T
        for start in range(0, len(self.vectors), self.block):
            block: Stored = np.array(self.vectors[start : start + self.block])
            documents = torch.from_numpy(block).to(device).float()
            rough = (documents @ sides).T.cpu().numpy()
            slack = 2 * rounding(block.shape[1]) * float(documents.norm(dim=1).max())
            for place, query in enumerate(queries):
                near = candidates(rough[place], best[place].scores, k, slack * norm(query))
                further = Best(start + near, products(block[near], query))
                best[place] = merged(best[place], further, k)
        return best


class Best(NamedTuple):
    """Documents by position and their scores, (n,) each, by (−score, position)."""

    places: Places
    scores: Scores


def products(vectors: Stored, query: Vectors) -> Scores:
    """Inner products of (n, d) with (d,), each summed alone in float64, so that equal documents
    score equally wherever they stand (in a matrix product they may not)."""
    scores: Scores = (vectors.astype(np.float64) * query).sum(axis=1)
    return scores


def rounding(size: int) -> float:
    """A bound on the error of a float32 inner product of ``size`` terms, in units of both norms
    (Higham 2002, eq. 3.5)."""
    unit = size * 2.0**-24
    return unit / (1 - unit)


def norm(vector: Vectors) -> float:
    return float(np.linalg.norm(vector))


def candidates(rough: Vectors, known: Scores, k: int, slack: float) -> Places:
    """Places of a block that may be among the ``k`` best, from scores that err by half the slack.

    known: exact scores of the best so far, falling
    """
    floor = known[k - 1] if len(known) >= k else -np.inf
    if k < len(rough):
        floor = max(floor, np.partition(rough, len(rough) - k)[len(rough) - k])
    return np.flatnonzero(rough >= floor - slack)


def merged(one: Best, other: Best, k: int) -> Best:
    """The ``k`` best of both."""
    places = np.concatenate([one.places, other.places])
    scores = np.concatenate([one.scores, other.scores])
    order = np.lexsort((places, -scores))[:k]
    return Best(places[order], scores[order])
