"""Other frameworks' objects go through the one door like any system."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas
import pytest

from harness import api, registry
from harness.run.store import read_rows
from systems.adapters import Mteb, PyTerrier, documents


def rows(systems: str, setting: str = "corpus") -> list[Any]:
    folder = api.run(["toy:count=4"], [systems], setting=setting)
    (entry,) = json.loads((folder / "manifest.json").read_text())["pipelines"]
    return list(read_rows(folder / entry["rows"]))


# --- PyTerrier ------------------------------------------------------------------------


class Scripted:
    """Scores documents by how long they are, and notes what it was given."""

    def __init__(self, corpus: Any) -> None:
        self.all = pandas.DataFrame(documents(corpus))
        self.given: list[pandas.DataFrame] = []

    def transform(self, frame: pandas.DataFrame) -> pandas.DataFrame:
        self.given.append(frame)
        if "docno" not in frame:
            frame = frame.merge(self.all, how="cross")
        return self.changed(frame.assign(score=-(frame["text"].str.len() // 4), rank=0))

    def changed(self, found: pandas.DataFrame) -> Any:
        return found


@pytest.fixture
def scripted() -> list[Scripted]:
    made: list[Scripted] = []

    class System(PyTerrier):
        def make(self, corpus, folder, brief):
            made.append(Scripted(corpus))
            return made[-1]

    registry.register("systems", "pt")(System)
    return made


def test_a_transformer_without_candidates_is_given_queries_and_searches(scripted) -> None:
    found = rows("pt@6")
    (frame,) = scripted[0].given
    assert list(frame.columns) == ["qid", "query"]
    assert set(frame["query"].str[:12]) == {"Where stands"}
    lengths = dict(
        zip(scripted[0].all["docno"], scripted[0].all["text"].str.len() // 4, strict=True)
    )
    best = sorted(lengths, key=lambda d: (lengths[d], d))[:6]
    assert len(set(lengths.values())) < len(lengths)
    assert [[hit.id for hit in row.hits] for row in found] == [best] * 4
    assert [hit.score for hit in found[0].hits] == [-lengths[d] for d in best]


def test_behind_a_retriever_it_is_given_candidates_with_texts_scores_and_ranks(scripted) -> None:
    found = rows("bm25@3+pt@2")
    (frame,) = scripted[0].given
    assert list(frame.columns) == ["qid", "query", "docno", "title", "text", "score", "rank"]
    for row in found:
        given = frame[frame["qid"] == row.id]
        assert list(given["rank"]) == [0, 1, 2]
        assert list(given["score"]) == sorted(given["score"], reverse=True)
        assert given["score"].iloc[0] > 0
        best = sorted(zip(given["text"].str.len() // 4, given["docno"], strict=True))[:2]
        assert [hit.id for hit in row.hits] == [doc_id for _, doc_id in best]


def test_a_pool_is_candidates_too(scripted) -> None:
    assert all(len(row.hits) == 5 for row in rows("pt", "pool"))
    assert set(scripted[0].given[0]["score"]) == {0.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop(columns="score"), "expected a DataFrame with qid, docno, score"),
        (lambda f: f.to_dict("records"), "transform returned list, expected a DataFrame"),
        (lambda f: f.assign(qid="other"), "it ranks for 'other', which was not asked."),
        (lambda f: f.assign(docno="f" * 16).head(1), "which is not in the corpus"),
        (lambda f: pandas.concat([f, f]), "twice"),
        (lambda f: f.assign(score=[math.nan, *f["score"][1:]]), "is nan"),
        (lambda f: f.assign(docno=7).head(1), "the id 7 is int"),
    ],
)
def test_what_it_does_wrong_is_said_of_the_questions_that_it_did_it_with(
    change, said, scripted, monkeypatch
) -> None:
    monkeypatch.setattr(Scripted, "changed", lambda self, found: change(found))
    errors = [row.error for row in rows("pt@9") if row.error]
    assert errors
    assert all(said in error for error in errors), errors


def test_questions_without_candidates_have_no_hits(scripted) -> None:
    class Nothing:
        def retrieve(self, queries, k):
            return [[] for _ in queries]

    registry.register("systems", "nothing")(Nothing)
    assert [row.hits for row in rows("nothing@3+pt")] == [()] * 4


def test_what_make_returns_is_checked_when_it_is_opened() -> None:
    class Other(Mteb):
        def make(self, corpus, folder, brief):
            return object()

    registry.register("systems", "other")(Other)
    registry.register("systems", "unmade")(PyTerrier)
    with pytest.raises(api.HarnessError, match="object, which has no index and no search"):
        rows("other")
    with pytest.raises(api.HarnessError, match="unmade cannot be started"):
        rows("unmade")


# --- mteb -----------------------------------------------------------------------------


class Searching:
    """Keeps to the protocol: keywords only, and no more of them than mteb hands over."""

    def index(self, corpus, *, task_metadata, hf_split, hf_subset, encode_kwargs, num_proc):
        self.corpus, self.told = corpus, (hf_split, hf_subset, encode_kwargs, num_proc)

    def search(
        self, queries, *, task_metadata, hf_split, hf_subset, top_k, encode_kwargs,
        top_ranked=None, num_proc,
    ):  # fmt: skip
        self.queries, self.top_ranked, self.top_k = queries, top_ranked, top_k
        among = {row["id"]: (top_ranked or {}).get(row["id"], self.corpus["id"]) for row in queries}
        size = dict(zip(self.corpus["id"], map(len, self.corpus["text"]), strict=True))
        return {query: {d: size[d] // 4 for d in found} for query, found in among.items()}


@pytest.fixture
def searching() -> list[Searching]:
    pytest.importorskip("datasets", reason="mteb's objects are handed data sets of datasets")
    made: list[Searching] = []

    class System(Mteb):
        def make(self, corpus, folder, brief):
            made.append(Searching())
            return made[-1]

    registry.register("systems", "mt")(System)
    return made


def test_a_search_object_is_given_the_corpus_and_queries_as_data_sets(searching) -> None:
    found = rows("mt@6")
    made = searching[0]
    assert made.corpus.column_names == ["id", "title", "text"]
    assert made.queries.column_names == ["id", "text"]
    assert (made.top_ranked, made.top_k, len(made.corpus)) == (None, 6, 20)
    size = dict(zip(made.corpus["id"], map(len, made.corpus["text"]), strict=True))
    best = sorted(size, key=lambda d: (-(size[d] // 4), d))[:6]
    assert [[hit.id for hit in row.hits] for row in found] == [best] * 4


@pytest.mark.parametrize(
    ("system", "setting", "size"), [("bm25@3+mt", "corpus", 3), ("mt", "pool", 5)]
)
def test_candidates_are_its_top_ranked(system, setting, size, searching) -> None:
    found = rows(system, setting)
    assert {row.id: sorted(hit.id for hit in row.hits) for row in found} == searching[0].top_ranked
    assert {len(row.hits) for row in found} == {size}


def test_scores_that_are_no_mapping_are_refused(searching, monkeypatch) -> None:
    monkeypatch.setattr(Searching, "search", lambda self, queries, **rest: [])
    assert {row.error for row in rows("mt")} == {
        "mt: search returned list, expected {query: {document: score}}. See mteb's SearchProtocol."
    }


def test_without_datasets_it_says_what_to_install(monkeypatch, searching) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(api.HarnessError, match="package datasets, which is not installed"):
        rows("mt")
    assert not Path("results/runs").exists() or not list(Path("results/runs").rglob("rows.jsonl"))
