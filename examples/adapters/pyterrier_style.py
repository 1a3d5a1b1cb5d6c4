"""A PyTerrier-style object as a system. PyTerrier's own pipelines are made of such objects.

    python -m harness run --task mini-hotpotqa --setting corpus --limit 20 --allow-code \
        --system examples/adapters/pyterrier_style.py:Words@20 \
        bm25@20+examples/adapters/pyterrier_style.py:Words@10
"""

from collections import Counter

import pandas

from systems.adapters import PyTerrier, documents


class WordCount:
    """Scores by shared words: candidates where there are any (a reranker), else all documents."""

    def __init__(self, corpus) -> None:
        self.all = pandas.DataFrame(documents(corpus))

    def transform(self, frame: pandas.DataFrame) -> pandas.DataFrame:
        if "docno" not in frame.columns:
            frame = frame.merge(self.all, how="cross")
        pairs = zip(frame["query"], frame["text"], strict=True)
        scores = [sum((words(query) & words(text)).values()) for query, text in pairs]
        return frame.assign(score=scores)[["qid", "docno", "score"]]


def words(text: str) -> Counter:
    return Counter(text.lower().split())


class Words(PyTerrier):
    def make(self, corpus, folder, brief):
        return WordCount(corpus)  # with PyTerrier: pt.terrier.Retriever(…), a >> b, pt.apply.…
