"""A random order of the candidates: the floor every ranking must clear."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from harness.corpus import Corpus
from harness.data import Brief, Hit, Query
from systems.ranking import pool_hits


class Random:
    """Draws from (the run's seed, the question), so that batches and resumption change nothing."""

    independent = True

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:  # noqa: ARG002
        self.corpus = corpus
        self.seed = brief.seed

    def retrieve(self, queries: Sequence[Query], k: int) -> list[list[Hit]]:
        return [self._one(query, k) for query in queries]

    def _one(self, query: Query, k: int) -> list[Hit]:
        seed = blake2b(f"{self.seed} {query.id}".encode(), digest_size=8).digest()
        generator = np.random.default_rng(int.from_bytes(seed))
        if query.pool is not None:
            return pool_hits(query.pool, generator.random(len(query.pool)), k)
        places = generator.choice(len(self.corpus), min(k, len(self.corpus)), replace=False)
        return [Hit(self.corpus.id(p), -float(rank)) for rank, p in enumerate(places.tolist())]
