"""Reranking by log p(question | passage)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from reading import PASSAGES, QUESTIONS, brief

from harness import api, registry
from harness.corpus import Corpus
from harness.data import Document, HarnessError, Query
from harness.spelling import parse_spelled
from systems.models.language import open_lm
from systems.models.prompts import Prompt
from systems.query_likelihood import QueryLikelihood

KINDS = {"llama": tiny_models.make_llama, **tiny_models.OPEN}


@pytest.fixture(scope="module", params=KINDS)
def folder(request: Any, tmp_path_factory: Any) -> Path:
    return KINDS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: Any) -> Corpus:
    twin = replace(PASSAGES[0], id="again")
    return tiny_models.corpus_of([*PASSAGES, twin], tmp_path_factory.mktemp("c") / "corpus")


@pytest.fixture(scope="module")
def queries(corpus: Corpus) -> list[Query]:
    pools = [tuple(corpus.ids), tuple(corpus.ids[1:3]), tuple(corpus.ids)]
    return [replace(each, pool=pool) for each, pool in zip(QUESTIONS, pools, strict=True)]


def opened(folder: Path, corpus: Corpus, **options: Any) -> QueryLikelihood:
    system = QueryLikelihood(str(folder), **options)
    system.open(corpus, None, brief())
    return system


def test_a_score_is_the_likelihood_of_the_question(
    folder: Path, corpus: Corpus, queries: list[Query]
) -> None:
    lm, system = open_lm(folder), opened(folder, corpus, batch_size=3)
    for query, reply in zip(queries, system.retrieve(queries, 9), strict=True):
        assert {hit.id for hit in reply.hits} == set(query.pool or ())
        total = 0
        for hit in reply.hits:
            prompt = Prompt(None, [corpus[hit.id]])
            (found,) = lm.log_likelihood([prompt], [query.text])
            assert hit.score == pytest.approx(found.log_p, abs=1e-3)
            total += lm.count(prompt) + found.tokens
        assert reply.counts == {"prompt_tokens": total}


def test_a_passage_is_read_once_for_a_question(
    folder: Path, corpus: Corpus, queries: list[Query], monkeypatch: pytest.MonkeyPatch
) -> None:
    system, read = opened(folder, corpus), []
    render = system.lm.prompts.render

    def counted(prompt: Prompt, words: Any = ()) -> Any:
        read.append(prompt)
        return render(prompt, words)

    monkeypatch.setattr(system.lm.prompts, "render", counted)
    system.retrieve(queries[:1], 9)
    assert len(read) == len(PASSAGES)


def test_equal_passages_tie_in_id_order(folder: Path, corpus: Corpus, queries: list[Query]) -> None:
    (reply,) = opened(folder, corpus, batch_size=2).retrieve(queries[:1], 9)
    twins = [hit for hit in reply.hits if corpus[hit.id].text == PASSAGES[0].text]
    assert len(twins) == 2 and twins[0].score == twins[1].score and twins[0].id < twins[1].id


def test_long_passages_are_cut(folder: Path, queries: list[Query], tmp_path: Path) -> None:
    texts = ["river tower " * 200, "river tower " * 300]
    corpus = tiny_models.corpus_of([Document(str(len(t)), t) for t in texts], tmp_path / "corpus")
    asked = [replace(queries[0], pool=tuple(corpus.ids))]
    (reply,) = opened(folder, corpus, max_length=20).retrieve(asked, 9)
    assert reply.hits[0].score == pytest.approx(reply.hits[1].score, abs=1e-3)


def test_it_reranks_behind_a_retriever(folder: Path) -> None:
    system = f"query-likelihood:{folder}"
    run = api.run(["toy"], [f"bm25@4+{system}@2"], setting="corpus", limit=5)
    (cell,) = [c for c in api.records(api.score(run)) if c.metric == "R@2"]
    assert cell.errors == 0 and cell.n == 5
    with pytest.raises(HarnessError, match=r"Put a retriever before it"):
        api.run(["toy"], [system], setting="corpus")


def test_wrong_options_are_one_sentence() -> None:
    with pytest.raises(HarnessError, match="batch_size=0"):
        registry.create("systems", parse_spelled("query-likelihood:batch_size=0"))
