"""Other frameworks' retrievers and rerankers as systems: inherit and say how to make the object.

    class Mine(PyTerrier):
        def make(self, corpus, folder, brief):
            return pt.terrier.Retriever(str(folder / "index")) % 100

`PyTerrier` takes what has ``transform(DataFrame) -> DataFrame``, `Mteb` what has
``index(corpus, …)`` and ``search(queries, …) -> {query: {document: score}}`` (mteb's SearchProtocol
from version 2 on).
Options are the parameters of the subclass's constructor, and an index is what its ``build`` writes,
as in any system. Documents are known by our ids: what was indexed under others cannot be asked.

What it does not do: translate native ids (the stage ``trec`` does); put a query into the language
of Terrier's parser.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.corpus import Corpus
from harness.data import Brief, HarnessError, Hit, Query

CHUNK = 64
"""Documents or questions that an mteb object encodes at a time."""


def documents(corpus: Corpus) -> Iterator[dict[str, str]]:
    """The corpus as PyTerrier's indexers take it: docno, title, text."""
    return ({"docno": each.id, "title": each.title, "text": each.text} for each in corpus)


class PyTerrier:
    """A PyTerrier-style transformer. Where candidates are given (a pool, or what the stage before
    passed on) it gets qid, query, docno, title, text, score and rank, else qid and query."""

    def make(self, corpus: Corpus, folder: Path | None, brief: Brief) -> Any:
        """The object, given what `harness.contract.System.open` is."""
        raise NotImplementedError

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:
        self.corpus = corpus
        self.made = _with(("transform",), self.make(corpus, folder, brief))

    def retrieve(self, queries: Sequence[Query], k: int) -> list[list[Hit]]:
        import pandas

        rows = [row for query in queries for row in self._rows(query)]
        if not rows:
            return [[] for _ in queries]
        found = self.made.transform(pandas.DataFrame(rows))
        names = ("qid", "docno", "score")
        if not isinstance(found, pandas.DataFrame) or not {*names} <= {*found.columns}:
            got = list(getattr(found, "columns", [type(found).__name__]))
            raise HarnessError(
                f"transform returned {', '.join(map(str, got))}, expected a DataFrame with "
                f"{', '.join(names)}.",
                "End the pipeline with something that ranks.",
            )
        return _hits(queries, zip(*(found[name] for name in names), strict=True), k)

    def _rows(self, query: Query) -> Iterator[dict[str, Any]]:
        asked = {"qid": query.id, "query": query.text}
        if query.pool is None:
            yield asked
            return
        for rank, hit in enumerate(query.prior or [Hit(each, 0.0) for each in query.pool]):
            document = self.corpus[hit.id]
            told = {"docno": hit.id, "title": document.title, "text": document.text}
            yield {**asked, **told, "score": hit.score, "rank": rank}


class Mteb:
    """An object of mteb's SearchProtocol. The corpus and a batch of questions are handed over as
    data sets with id, title and text; candidates as ``top_ranked``. Of the task it is told nothing
    that tells it from others.

    The corpus stands in memory and is indexed at every `open`. Many such objects encode the whole
    corpus at every search: give them all questions at once (``--batch-size``).
    """

    def make(self, corpus: Corpus, folder: Path | None, brief: Brief) -> Any:
        """The object, given what `harness.contract.System.open` is."""
        raise NotImplementedError

    def open(self, corpus: Corpus, folder: Path | None, brief: Brief) -> None:
        self.made = _with(("index", "search"), self.make(corpus, folder, brief))
        self.told = {
            "task_metadata": _neutral(),
            "hf_split": "test",
            "hf_subset": "default",
            "encode_kwargs": {"batch_size": CHUNK, "show_progress_bar": False},
            "num_proc": None,
        }
        rows = [(each.id, each.title, each.text) for each in corpus]
        self.made.index(_dataset(("id", "title", "text"), rows), **self.told)

    def retrieve(self, queries: Sequence[Query], k: int) -> list[list[Hit]]:
        pools = {query.id: list(query.pool) for query in queries if query.pool is not None}
        asked = _dataset(("id", "text"), [(query.id, query.text) for query in queries])
        found = self.made.search(asked, top_k=k, top_ranked=pools or None, **self.told)
        if not isinstance(found, Mapping):
            raise HarnessError(
                f"search returned {type(found).__name__}, expected {{query: {{document: score}}}}.",
                "See mteb's SearchProtocol.",
            )
        triples = ((q, d, score) for q, scores in found.items() for d, score in scores.items())
        return _hits(queries, triples, k)


def _with(methods: Sequence[str], made: Any) -> Any:
    """The object, if it has these methods."""
    if lacking := [name for name in methods if not callable(getattr(made, name, None))]:
        raise HarnessError(
            f"make returned {type(made).__name__}, which has no {' and no '.join(lacking)}.",
            "Return the object itself, not its class or its scores.",
        )
    return made


def _hits(
    queries: Sequence[Query], found: Iterable[tuple[str, str, Any]], k: int
) -> list[list[Hit]]:
    """The ``k`` best of each query by (−score, id); NaN first, so that the door sees it."""
    ranked: dict[str, list[Hit]] = {query.id: [] for query in queries}
    for query_id, doc_id, score in found:
        if query_id not in ranked:
            raise HarnessError(f"it ranks for {query_id!r}, which was not asked.")
        ranked[query_id].append(Hit(doc_id, float(score)))
    for hits in ranked.values():
        hits.sort(key=lambda hit: (not math.isnan(hit.score), -hit.score, hit.id))
    return [hits[:k] for hits in ranked.values()]


def _dataset(names: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Any:
    """A data set of the library that mteb's objects are handed."""
    try:
        from datasets import Dataset
    except ImportError as error:
        raise HarnessError(
            "mteb's objects are handed data sets of the package datasets, which is not installed.",
            "pip install -c constraints.txt -e '.[hub]'.",
        ) from error
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return Dataset.from_dict(dict(zip(names, map(list, columns), strict=True)))


def _neutral() -> Any:
    """mteb's description of a task that says no more than that it is English retrieval; None where
    mteb is not installed, whose objects alone can read it."""
    if find_spec("mteb") is None:
        return None
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name="Retrieval",
        description="Passages that answer a question.",
        type="Retrieval",
        dataset={"path": "none", "revision": "none"},
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )
