from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
import transformers

from harness import registry
from harness.corpus import Corpus
from harness.data import Brief, Document, HarnessError, Hit, Query
from harness.run.stages import Station
from harness.spelling import parse_spelled
from systems import e5 as module
from systems.e5 import E5

WORDS = (
    *("tower", "river", "Mira", "Kolen", "Brno", "Ostrava", "built", "born"),
    *("year", "Morava", "who", "when", "where", "lived", "near"),
)


def documents(count: int, copies: int = 0) -> list[Document]:
    """Short passages, some without a title; the first also ``copies`` times under other ids."""
    draw = np.random.default_rng(1)
    made = []
    for place in range(count):
        text = " ".join(draw.choice(WORDS, draw.integers(2, 12)))
        title = " ".join(draw.choice(WORDS, 2)) if place % 3 else ""
        made.append(Document(f"n{place}", text, title))
    return made + [replace(made[0], id=f"copy{each}") for each in range(copies)]


QUESTIONS = [Query(f"q{place}", " ".join(WORDS[place : place + 4])) for place in range(7)]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: Any) -> Path:
    return tiny_models.make_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: Any) -> Corpus:
    return tiny_models.corpus_of(documents(90, copies=6), tmp_path_factory.mktemp("c") / "corpus")


def opened(corpus: Corpus, folder: Path, **options: Any) -> E5:
    folder.mkdir(exist_ok=True)
    system = E5(**options)
    system.build(corpus, folder, Brief())
    system.open(corpus, folder, Brief())
    return system


@pytest.fixture(scope="module")
def system(bert: Path, corpus: Corpus, tmp_path_factory: Any) -> E5:
    return opened(corpus, tmp_path_factory.mktemp("index"), model=str(bert))


def by_hand(folder: Path, text: str) -> Any:
    """The E5 recipe for one text: mean over the tokens, length one."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    vector = hidden.mean(0).double().numpy()
    return vector / np.linalg.norm(vector)


def test_scores_are_the_cosines_of_the_paper(bert: Path, corpus: Corpus, system: E5) -> None:
    (found,) = system.retrieve([QUESTIONS[0]], 20)
    question = by_hand(bert, f"query: {QUESTIONS[0].text}")
    for hit in found:
        document = corpus[hit.id]
        text = f"{document.title} {document.text}" if document.title else document.text
        cosine = question @ by_hand(bert, f"passage: {text}")
        assert hit.score == pytest.approx(cosine, abs=1e-3)  # the index has half precision
    assert len(found) == 20


def brute_force(system: E5, query: Query, k: int) -> list[Hit]:
    """Every document scored alone, sorted in plain Python."""
    (vector,) = system.encoder.encode(["query: " + query.text]).astype(np.float64)
    scored = [
        (-float((row.astype(np.float64) * vector).sum()), i) for i, row in enumerate(system.vectors)
    ]
    return [Hit(system.corpus.id(place), -score) for score, place in sorted(scored)[:k]]


@pytest.mark.parametrize("block", [1, 7, 32, 96, 65536])
@pytest.mark.parametrize("k", [1, 4, 30, 500])
def test_search_in_blocks_is_brute_force(system: E5, block: int, k: int) -> None:
    system.block = block
    for query in QUESTIONS:
        (found,) = system.retrieve([query], k)
        assert found == brute_force(system, query, k)


def test_candidates_hold_the_best_whatever_the_rounding() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        exact = draw.choice(np.linspace(0, 1, 12), 40)
        rough = (exact + draw.uniform(-0.1, 0.1, 40)).astype(np.float32)
        known = -np.sort(-draw.choice(exact, 5))
        near = set(module.candidates(rough, known, 5, slack=0.2001).tolist())
        best = np.argsort(-exact, kind="stable")[:5]
        assert {place for place in best.tolist() if exact[place] >= known[4]} <= near


def test_equal_documents_score_equally_and_stand_in_id_order(system: E5, corpus: Corpus) -> None:
    first = corpus[next(i for i in range(len(corpus)) if corpus.id(i).endswith("-000002"))]
    for block in (5, 96):
        system.block = block
        (found,) = system.retrieve([Query("q", f"{first.title} {first.text}")], len(corpus))
        copies = [hit for hit in found if corpus[hit.id].text == first.text]
        assert len({hit.score for hit in copies}) == 1
        assert [hit.id for hit in copies] == sorted(hit.id for hit in copies)
        assert len(copies) == 7
        # a cut through the tie keeps the smaller ids
        (few,) = system.retrieve(
            [Query("q", f"{first.title} {first.text}")], found.index(copies[2])
        )
        assert few == found[: len(few)]


def test_a_batch_gives_what_single_questions_give(system: E5) -> None:
    together = system.retrieve(QUESTIONS, 10)
    for query, hits in zip(QUESTIONS, together, strict=True):
        (alone,) = system.retrieve([query], 10)
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-5)


def test_pools_close_the_candidates_in_any_order(system: E5, corpus: Corpus) -> None:
    pool = tuple(corpus.ids[10:40])
    (wide,) = system.retrieve([QUESTIONS[1]], len(corpus))
    expected = [hit for hit in wide if hit.id in pool]
    for shuffled in (pool, pool[::-1], pool[7:] + pool[:7]):
        (found,) = system.retrieve([replace(QUESTIONS[1], pool=shuffled)], 100)
        assert found == expected
    (few,) = system.retrieve([replace(QUESTIONS[1], pool=pool)], 3)
    assert few == expected[:3]


def test_open_and_closed_questions_share_a_batch(system: E5, corpus: Corpus) -> None:
    pool = tuple(corpus.ids[:5])
    mixed = [
        QUESTIONS[0],
        replace(QUESTIONS[1], pool=pool),
        QUESTIONS[2],
        replace(QUESTIONS[3], pool=()),
    ]
    found = system.retrieve(mixed, 8)
    assert [len(hits) for hits in found] == [8, 5, 8, 0]
    assert {hit.id for hit in found[1]} == set(pool)


def test_prefixes_and_pooling_reach_the_index(
    bert: Path, corpus: Corpus, system: E5, tmp_path: Path
) -> None:
    bare = opened(
        corpus, tmp_path / "bare", model=str(bert), query_prefix="none", passage_prefix="none"
    )
    expected = by_hand(
        bert, corpus[0].title + " " + corpus[0].text if corpus[0].title else corpus[0].text
    )
    np.testing.assert_allclose(bare.vectors[0], expected, atol=1e-3)
    assert not np.allclose(bare.vectors[0], system.vectors[0], atol=1e-2)
    last = opened(corpus, tmp_path / "last", model=str(bert), pooling="last")
    assert not np.allclose(last.vectors[0], system.vectors[0], atol=1e-2)


def test_the_index_is_half_precision_and_written_in_chunks(
    bert: Path, corpus: Corpus, system: E5, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 25)
    chunked = E5(str(bert))
    told: list[tuple[int, int]] = []
    chunked.on_progress = lambda done, whole: told.append((done, whole))
    chunked.build(corpus, tmp_path, Brief())
    assert told == [(25, 96), (50, 96), (75, 96), (96, 96)]
    vectors = np.load(tmp_path / "vectors.npy")
    assert vectors.dtype == np.float16 and vectors.shape == (96, 32)
    np.testing.assert_allclose(vectors, system.vectors, atol=2e-3)


@pytest.mark.parametrize("count", [0, 1])
def test_a_corpus_of_no_or_one_document(bert: Path, tmp_path: Path, count: int) -> None:
    small = tiny_models.corpus_of(documents(count), tmp_path / "corpus")
    system = opened(small, tmp_path / "index", model=str(bert))
    assert [len(hits) for hits in system.retrieve(QUESTIONS[:2], 10)] == [count, count]
    assert system.retrieve([], 10) == []


@pytest.mark.parametrize("kind", ["bert", "open-bert", *tiny_models.LANGUAGE])
def test_every_kind_of_model_goes_through_the_door(
    kind: str, corpus: Corpus, tmp_path: Path
) -> None:
    own = {"bert": tiny_models.make_bert, "open-bert": tiny_models.make_open_bert}
    make = {**own, **tiny_models.LANGUAGE}[kind]
    pooling = "mean" if kind in own else "last"
    spelled = parse_spelled(f"e5:{make(tmp_path / 'model')},pooling={pooling},block=40")
    system = registry.create("systems", spelled)
    assert system.folder() == tmp_path / "model"
    (tmp_path / "index").mkdir()
    system.build(corpus, tmp_path / "index", Brief())
    system.open(corpus, tmp_path / "index", Brief())
    rows = Station("e5", system, corpus, depth=9).rows(QUESTIONS, None)
    assert [row.error for row in rows] == [""] * len(QUESTIONS)
    assert all(len(row.hits) == 9 for row in rows)
    assert len({row.hits[0].score for row in rows}) > 1


def test_wrong_options_are_one_sentence(bert: Path) -> None:
    for option in ("block", "max_length", "batch_size"):
        with pytest.raises(HarnessError, match=f"e5:{option}=0 is wrong"):
            E5(str(bert), **{option: 0})
    with pytest.raises(HarnessError, match="hf download acme/nothing"):
        E5("acme/nothing").files()
    with pytest.raises(HarnessError, match="pooling"):
        registry.create("systems", parse_spelled("e5:model=x,pooling=max"))
