"""Reranking by a cross-encoder."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from reading import PASSAGES, QUESTIONS, brief
from safetensors.torch import load_file

from harness import registry
from harness.corpus import Corpus
from harness.data import Document, HarnessError, Query
from harness.run.stages import Station
from harness.spelling import parse_spelled
from systems.cross_encoder import CrossEncoder
from systems.models.words import Lexicon, OpenWords
from systems.passages import words_of

LONG = Document("long", "river " * 90, "Morava")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: Any) -> Corpus:
    folder = tmp_path_factory.mktemp("c") / "corpus"
    return tiny_models.corpus_of([*PASSAGES, LONG, replace(PASSAGES[0], id="again")], folder)


@pytest.fixture(scope="module")
def queries(corpus: Corpus) -> list[Query]:
    pools = [tuple(corpus.ids), tuple(corpus.ids[1:4]), tuple(corpus.ids)]
    return [replace(each, pool=pool) for each, pool in zip(QUESTIONS, pools, strict=True)]


def opened(folder: Path, corpus: Corpus, **options: Any) -> CrossEncoder:
    system = CrossEncoder(str(folder), **options)
    system.open(corpus, None, brief())
    return system


@cache
def loaded(folder: Path) -> Any:
    kind = transformers.AutoModelForSequenceClassification
    return kind.from_pretrained(folder).eval(), transformers.AutoTokenizer.from_pretrained(folder)


def by_hand(folder: Path, question: str, passage: Document) -> float:
    """One pair straight through transformers; two logits: how much likelier the second is."""
    model, tokenizer = loaded(folder)
    text = words_of(passage)
    read = tokenizer(question, text, truncation="only_second", max_length=64, return_tensors="pt")
    assert read["token_type_ids"].max() == 1
    with torch.inference_mode():
        logits = model(**read).logits[0]
    return float(logits[0] if len(logits) == 1 else logits[1] - logits[0])


@pytest.mark.parametrize("labels", [1, 2])
def test_scores_are_the_model_s_own_in_any_batch(
    labels: int, corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    folder = tiny_models.make_classifier(tmp_path, labels=labels)
    for batch_size in (1, 4, 50):
        system = opened(folder, corpus, batch_size=batch_size)
        for query, reply in zip(queries, system.retrieve(queries, 9), strict=True):
            assert {hit.id for hit in reply.hits} == set(query.pool or ())
            for hit in reply.hits:
                expected = by_hand(folder, query.text, corpus[hit.id])
                assert hit.score == pytest.approx(expected, abs=1e-4)
            assert reply.counts["prompt_tokens"] > 0


def test_open_words_are_read_as_question_and_passage(
    corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    folder = tiny_models.make_open_bert(tmp_path, labels=1)
    model = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
    hashed = load_file(folder / "model.safetensors")["words.hashed"]
    known = model.get_input_embeddings().weight
    system = opened(folder, corpus, batch_size=3)
    for query, reply in zip(queries, system.retrieve(queries, 9), strict=True):
        for hit in reply.hits:
            lexicon = Lexicon(OpenWords.read(folder))
            asked = lexicon.question(query.text)
            ids = [*asked, *lexicon.passage(corpus[hit.id])][:64]
            slots = [sum(hashed[row] for row in codes) / 3**0.5 for codes in lexicon.codes()]
            read = [known[i] if i < len(known) else slots[i - len(known)] for i in ids]
            kinds = torch.tensor([[int(place >= len(asked)) for place in range(len(ids))]])
            with torch.no_grad():
                logits = model(inputs_embeds=torch.stack(read)[None], token_type_ids=kinds).logits
            assert hit.score == pytest.approx(logits.item(), abs=1e-4)


def test_equal_passages_tie_and_stand_in_id_order(
    corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    system = opened(tiny_models.make_classifier(tmp_path), corpus, batch_size=2)
    (reply,) = system.retrieve(queries[:1], 9)
    twins = [hit for hit in reply.hits if corpus[hit.id].text == PASSAGES[0].text]
    assert len(twins) == 2 and twins[0].score == twins[1].score and twins[0].id < twins[1].id
    (few,) = system.retrieve(queries[:1], 2)
    assert few.hits == reply.hits[:2]


def test_a_question_that_leaves_no_room_errs_alone(
    corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    for make in (tiny_models.make_classifier, tiny_models.make_open_bert):
        folder = tmp_path / make.__name__
        folder.mkdir()
        spelled = parse_spelled(f"cross-encoder:{make(folder, labels=1)}")
        system = registry.create("systems", spelled)
        assert system.needs_pool and system.folder() == folder
        system.open(corpus, None, brief())
        asked = [replace(queries[0], id="long", text="where? " * 70), *queries]
        rows = Station("cross-encoder", system, corpus, depth=2).rows(asked, None)
        assert [bool(row.error) for row in rows] == [True, False, False, False]
        assert "leaves none to a passage" in rows[0].error
        assert [len(row.hits) for row in rows[1:]] == [2, 2, 2]


def test_other_classifiers_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="has 3 labels"):
        opened(tiny_models.make_classifier(tmp_path / "three", labels=3), corpus)
    with pytest.raises(HarnessError, match=r"lacks .* weights"):
        opened(tiny_models.make_bert(tmp_path / "bert"), corpus)
    with pytest.raises(HarnessError, match="max_length=0"):
        CrossEncoder(max_length=0)
    with pytest.raises(HarnessError, match="given no pool"):
        opened(tiny_models.make_classifier(tmp_path / "one"), corpus).retrieve(QUESTIONS[:1], 3)
