"""Objects of mteb and PyTerrier themselves behind the adapters: `tox -e peers`."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from typing import Any

import pytest

from harness import api, registry
from harness.run.store import read_rows
from systems.adapters import Mteb, PyTerrier, documents

TASK = "mini-hotpotqa:documents=300,questions=40"


def rows(system: str) -> dict[str, Any]:
    folder = api.run([TASK], [system], setting="corpus")
    (entry,) = json.loads((folder / "manifest.json").read_text())["pipelines"]
    assert entry["errors"] == 0
    return {row.id: row for row in read_rows(folder / entry["rows"])}


def overlap(row: Any) -> float:
    asked, told = (Counter(row[name].lower().split()) for name in ("query", "text"))
    return float((asked & told).total())


@pytest.fixture
def bm25_of_mteb() -> None:
    mteb = pytest.importorskip("mteb", reason="needs the package mteb: tox -e peers")

    class Bm25(Mteb):
        def make(self, corpus, folder, brief):
            return mteb.get_model("mteb/baseline-bm25s")

    registry.register("systems", "theirs")(Bm25)


def test_bm25_of_mteb_ranks_as_ours_does(bm25_of_mteb: None) -> None:
    """Both ask bm25s, with the same stemmer and stop words; ours joins title and text alike."""
    theirs, ours = rows("theirs@5"), rows("bm25@5")
    for query_id, row in theirs.items():
        assert [hit.score for hit in row.hits] == pytest.approx(
            [hit.score for hit in ours[query_id].hits], rel=1e-5
        )
    same = sum(row.hits[0].id == ours[query_id].hits[0].id for query_id, row in theirs.items())
    assert same >= 0.9 * len(theirs)


def test_it_ranks_no_other_documents_than_it_is_given(bm25_of_mteb: None) -> None:
    """It searches all and keeps those given, so that some of them may be left out."""
    first, again = rows("bm25@7"), rows("bm25@7+theirs@7")
    for query_id, row in again.items():
        assert {hit.id for hit in row.hits} <= {hit.id for hit in first[query_id].hits}
        assert row.hits[0].id == first[query_id].hits[0].id


def test_the_adapter_gives_what_the_protocol_asks_for() -> None:
    protocols = pytest.importorskip(
        "mteb.models.models_protocols", reason="needs the package mteb: tox -e peers"
    )
    given: dict[str, set[str]] = {}

    class Searching:
        mteb_model_meta = None

        def index(self, corpus, **rest):
            given["index"] = {"corpus", *rest}

        def search(self, queries, **rest):
            given["search"] = {"queries", *rest}
            return {}

    class System(Mteb):
        def make(self, corpus, folder, brief):
            assert isinstance(Searching(), protocols.SearchProtocol)
            return Searching()

    registry.register("systems", "searching")(System)
    rows("searching")
    for name, names in given.items():
        asked = inspect.signature(getattr(protocols.SearchProtocol, name)).parameters
        assert names == asked.keys() - {"self", "kwargs"}


def test_pipelines_of_pyterrier_search_and_rerank() -> None:
    pt = pytest.importorskip("pyterrier", reason="needs the package pyterrier: tox -e peers")
    pandas = pytest.importorskip("pandas")

    class Rerank(PyTerrier):
        def make(self, corpus, folder, brief):
            return pt.apply.doc_score(overlap) % 3

    class Search(PyTerrier):
        def make(self, corpus, folder, brief):
            every = pandas.DataFrame(documents(corpus))
            first = pt.apply.generic(
                lambda asked: asked.merge(every, how="cross").assign(score=0.0, rank=0)
            )
            return first >> pt.apply.doc_score(overlap) % 3

    registry.register("systems", "rerank")(Rerank)
    registry.register("systems", "search")(Search)
    first, again, found = rows("bm25@9"), rows("bm25@9+rerank@3"), rows("search@3")
    for query_id, row in again.items():
        assert {hit.id for hit in row.hits} <= {hit.id for hit in first[query_id].hits}
        assert len(row.hits) == len(found[query_id].hits) == 3
        assert found[query_id].hits[0].score >= row.hits[0].score
