"""A retriever in a package of its own, found by its entry point."""

from harness import api
from harness.data import Hit


class Overlap:
    """Ranks a question's pool by how many of its words a passage holds."""

    needs_pool = True

    def __init__(self, shortest: int = 3) -> None:  # options: overlap:shortest=4
        self.shortest = shortest

    def open(self, corpus, folder, brief) -> None:
        self.corpus = corpus

    @api.one_at_a_time
    def retrieve(self, query, k):
        asked = {w for w in query.text.lower().split() if len(w) >= self.shortest}
        found = {d: len(asked & set(self.corpus[d].text.lower().split())) for d in query.pool}
        best = sorted(found, key=lambda d: (-found[d], d))[:k]
        return [Hit(d, found[d]) for d in best]
