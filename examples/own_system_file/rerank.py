"""A reranker in one file: by how much of a passage's beginning the question's words are.

    python -m harness run --task mini-hotpotqa --limit 50 --allow-code \
        --system bm25 bm25@5+examples/own_system_file/rerank.py:Opening:words=12
"""

from collections.abc import Sequence

from harness import api
from harness.data import Hit, Query


class Opening:
    """Ranks what the stage before passed on; ``words`` is how long a beginning is."""

    needs_pool = True

    def __init__(self, words: int = 8) -> None:
        self.words = words

    def open(self, corpus, folder, brief) -> None:
        self.corpus = corpus

    @api.one_at_a_time
    def retrieve(self, query: Query, k: int) -> Sequence[Hit]:
        asked = set(query.text.lower().split())
        openings = {d: self.corpus[d].text.lower().split()[: self.words] for d in query.pool or ()}
        found = {d: sum(word in asked for word in words) for d, words in openings.items()}
        return [Hit(d, found[d]) for d in sorted(found, key=lambda d: (-found[d], d))[:k]]
