"""The mini world in five official shapes: through the parsers, through `run`, odd rows and all."""

from __future__ import annotations

import json
import random
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from harness import api
from harness.canonical import open_questions, read_gold
from harness.corpus import Corpus
from harness.data import Brief, HarnessError, RawQuestion
from harness.prepare import prepare
from harness.score import ranking
from harness.score.normalise import triviaqa_normal
from systems.bm25 import BM25
from tasks import TABLE
from tasks.mini.reading import statements
from tasks.mini.tasks import (
    ON_PAGE,
    PAGES,
    MiniForms,
    MiniHotpotQA,
    MiniMSMarco,
    MiniMuSiQue,
    MiniTriviaQA,
    MiniTriviaQALong,
    MiniTwoWiki,
)
from tasks.mini.world import VERSION, World

TASKS: list[Any] = [MiniHotpotQA, MiniMuSiQue, MiniTwoWiki, MiniTriviaQA, MiniMSMarco]
PROFILES = ("standard", "hard", "shift")
each_task = pytest.mark.parametrize("kind", TASKS)
each_profile = pytest.mark.parametrize("profile", PROFILES)


def digest(rows: Any) -> str:
    return blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()


def rows_of(kind: Any, split: str = "test", **options: Any) -> list[Any]:
    made = kind(**options)
    return list(made.rows(World(made.documents, made.seed, split, made.profile)))


def questions_of(kind: Any, split: str = "test", **options: Any) -> list[RawQuestion]:
    return list(kind(**options).load(None, split, None).questions)


@each_task
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(kind: Any) -> None:
    size = {"documents": 400, "questions": 50}
    first = digest(rows_of(kind, **size))
    assert digest(rows_of(kind, **size)) == first
    assert digest(rows_of(kind, **size, seed=1)) != first
    assert digest(rows_of(kind, **size, profile="hard")) != first
    assert digest(rows_of(kind, "train", **size)) != first
    assert digest(rows_of(kind, "dev", **size)) != first


def test_long_pages_hold_a_candidate_each() -> None:
    """And the passage that answers is on one of them."""
    size = {"documents": 1000, "questions": 20, "seed": 3}
    world, rows = World(1000, 3, "test"), rows_of(MiniTriviaQALong, **size)
    assert len(rows) == 20 and rows == rows_of(MiniTriviaQALong, **size)
    for row in rows:
        pages = row["entity_pages"]
        assert len(pages["filename"]) == len(set(pages["filename"])) == PAGES
        for name, page in zip(pages["filename"], pages["wiki_context"], strict=True):
            assert world.passage(int(name.removesuffix(".txt"))).text in page
            assert len(page.split()) > 10 * ON_PAGE
        assert any(row["answer"]["value"] in page for page in pages["wiki_context"])
    loaded = MiniTriviaQALong(**size).load(None, "test", None)
    assert len(list(loaded.questions)) == 20 and not list(loaded.documents)


def test_the_version_names_these_bytes() -> None:
    """If this fails, the rows changed: give the world another VERSION and this test its digest."""
    assert (VERSION, digest([rows_of(kind) for kind in TASKS])) == ("mini-6", "855854ee07de721b")


@each_task
def test_rows_are_parsed_alike_in_a_stream_and_later(kind: Any) -> None:
    options = {"documents": 400, "questions": 40, "profile": "hard"}
    rows, made = rows_of(kind, **options), kind(**options)
    for _ in range(2):  # a row is not used up
        later = [made.parse(row, f"mini row {n}", Counter()) for n, row in enumerate(rows, 1)]
        assert later == questions_of(kind, **options)


@each_task
@each_profile
def test_candidates_are_documents_of_the_corpus(kind: Any, profile: str) -> None:
    loaded = kind(documents=300, questions=40, profile=profile).load(None, "test", None)
    documents = {(d.title, d.text, d.sentences) for d in loaded.documents}
    questions: list[RawQuestion] = list(loaded.questions)
    assert len(documents) == 300
    assert len(questions) == len({question.id for question in questions}) == 40
    for question in questions:
        assert len(question.candidates) == (20 if kind is MiniMuSiQue or profile == "hard" else 10)
        for candidate in question.candidates:
            d = candidate.document
            assert (d.title, d.text, d.sentences) in documents
            assert not d.sentences or d.text == "".join(d.sentences)
        assert any(candidate.grade for candidate in question.candidates)
        assert all(answer.strip() for answer in question.answers)
    assert dict(loaded.notes) == {}


@pytest.mark.parametrize("kind", [MiniHotpotQA, MiniTwoWiki])
@each_profile
def test_support_points_at_the_sentences_that_say_so(kind: Any, profile: str) -> None:
    for question in questions_of(kind, documents=300, questions=60, profile=profile):
        documents = {c.document.title: c.document for c in question.candidates if c.grade}
        assert question.sentences and len(documents) == len({t for t, _ in question.sentences})
        said = [
            statements(documents[title].text)[number][place]
            for title, number in question.sentences
            for place in range(len(statements(documents[title].text)[number]))
        ]
        last = {name for each in said for name in (each.subject, each.object)}
        assert question.answers[0] in ("yes", "no") or question.answers[0] in last
        for triple in question.triples or ():
            assert any(
                (each.subject, each.relation, each.object)
                == (triple[0][0], triple[1], triple[2][0])
                for each in said
            )


@pytest.mark.parametrize(
    ("kind", "hops"),
    [(MiniHotpotQA, {2}), (MiniTwoWiki, {2, 3, 4}), (MiniMuSiQue, {2, 3, 4}), (MiniMSMarco, {1})],
)
def test_as_many_passages_are_relevant_as_the_question_has_hops(kind: Any, hops: set[int]) -> None:
    asked = questions_of(kind, documents=600, questions=80)
    assert {sum(c.grade for c in question.candidates) for question in asked} == hops


def test_in_trivia_a_passage_with_the_answer_is_relevant() -> None:
    for question in questions_of(MiniTriviaQA, documents=300, questions=40):
        said = [triviaqa_normal(answer) for answer in question.answers]
        for candidate in question.candidates:
            text = f" {triviaqa_normal(candidate.document.text)} "
            assert candidate.grade == any(f" {answer} " in text for answer in said)


@pytest.mark.parametrize("kind", [MiniHotpotQA, MiniTwoWiki])
def test_comparisons_and_yes_or_no_are_asked(kind: Any) -> None:
    asked = questions_of(kind, documents=600, questions=80, comparisons=True)
    share = Counter(q.answers[0] if q.answers[0] in ("yes", "no") else "" for q in asked)
    assert share["yes"] and share["no"]
    assert share[""] > 40
    rows = rows_of(kind, documents=600, questions=80, comparisons=True)
    assert {row["type"] for row in rows} >= {"comparison"}


@pytest.mark.parametrize("kind", [MiniHotpotQA, MiniTwoWiki])
def test_one_of_each_is_asked_anyway(kind: Any) -> None:
    rows = rows_of(kind, documents=1000, questions=80)
    compared = [row["answer"] for row in rows if row["type"] == "comparison"]
    assert len(compared) == 2
    assert sum(answer in ("yes", "no") for answer in compared) == 1


def test_nicknames_are_accepted_answers() -> None:
    for kind in (MiniTwoWiki, MiniMuSiQue, MiniTriviaQA):
        found = questions_of(kind, documents=600, questions=80, profile="hard")
        assert any(len({a.lower() for a in question.answers}) > 1 for question in found)


# --- odd rows -------------------------------------------------------------------------


@each_task
@each_profile
def test_a_larger_world_has_one_odd_row(kind: Any, profile: str) -> None:
    loaded = kind(documents=1000, questions=20, profile=profile).load(None, "test", None)
    assert len(list(loaded.documents)) >= 1000
    assert len(list(loaded.questions)) == 20
    assert sum(loaded.notes.values()) == 1


def test_musique_has_a_twin_without_the_answer() -> None:
    *asked, twin = questions_of(MiniMuSiQue, documents=1000, questions=20)
    first = asked[0]
    assert twin.id == f"{first.id}:unanswerable"
    assert (twin.text, twin.answers, twin.answerable) == (first.text, (), False)
    kept = {c.document.text for c in twin.candidates}
    lost = [c for c in first.candidates if c.document.text not in kept]
    assert len(lost) == 1 and lost[0].grade and first.answers[0] in lost[0].document.text
    assert len(kept) == len(twin.candidates) == 20
    assert not any(first.answers[0] in c.document.text for c in twin.candidates if c.grade)


def test_marco_has_a_question_that_its_passages_do_not_answer() -> None:
    first, *rest = questions_of(MiniMSMarco, documents=1000, questions=20)
    assert (first.answers, first.answerable) == ((), False)
    assert any(candidate.grade for candidate in first.candidates)
    assert all(question.answerable and question.answers for question in rest)


def test_the_corpus_has_a_very_long_document_and_one_that_stands_twice(tmp_path: Path) -> None:
    folder = prepare("mini-hotpotqa:documents=1000,questions=10", data=tmp_path)
    corpus = open_questions(folder, MiniHotpotQA(), "test", "corpus").corpus
    assert len(corpus) == 999
    documents = [corpus[corpus.id(place)] for place in range(len(corpus))]
    assert max(len(document.text) for document in documents) > 88_000
    assert max(Counter(document.title for document in documents).values()) == 2


# --- running --------------------------------------------------------------------------


def bm25(tmp_path: Path, kind: Any, setting: Any, profile: str) -> float:
    """Mean nDCG@10."""
    made = kind(profile=profile)
    folder = prepare(f"{made.name}:profile={profile}", data=tmp_path / "data")
    questions, golds = open_questions(folder, made, "test", setting), read_gold(folder)
    assert len(questions.queries) == 200
    index = tmp_path / f"index-{profile}"
    index.mkdir()
    system = BM25()
    corpus: Corpus = questions.corpus
    system.build(corpus, index, Brief())
    system.open(corpus, index, Brief())
    hits = system.retrieve(questions.queries, 10)
    found = ranking.evaluate(
        {q.id: [hit.id for hit in h] for q, h in zip(questions.queries, hits, strict=True)},
        {query_id: gold.relevance for query_id, gold in golds.items()},
        ["nDCG@10"],
        made.rel,
    )
    return sum(scores["nDCG@10"] for scores in found.values()) / len(found)


@each_task
@pytest.mark.parametrize("setting", ["pool", "corpus"])
def test_bm25_has_headroom_and_more_of_it_when_hard(
    tmp_path: Path, kind: Any, setting: Any
) -> None:
    standard, hard = (bm25(tmp_path, kind, setting, each) for each in ("standard", "hard"))
    one_hop = kind in (MiniTriviaQA, MiniMSMarco)
    least, most = (0.75, 0.92) if one_hop else (0.4, 0.88)
    assert least < standard < most
    assert hard < standard


def test_examples_come_from_another_world() -> None:
    made = MiniHotpotQA(documents=300, questions=20)
    examples = list(made.examples(None, 0))
    assert len(examples) == 20
    asked = {question.text for question in made.load(None, "test", None).questions}
    assert not asked & {example.question for example in examples}


@each_task
def test_every_mini_task_teaches(kind: Any) -> None:
    made = kind()
    assert {"hometown", "painter", "1900", "?"} <= set(made.known_words())
    lessons = [
        made.lesson(world, random.Random(seed), 3, {"single": 1.0})
        for world, seed in (("a", 0), ("b", 0), ("a", 1), ("a", 0))
    ]
    assert lessons[0] == lessons[3] not in lessons[1:3]
    assert all(len(lesson.documents) == 3 for lesson in lessons)


def test_what_cannot_be_made_is_one_sentence() -> None:
    with pytest.raises(HarnessError, match=r"too small.*documents=100"):
        MiniHotpotQA(documents=20).load(None, "test", None)
    with pytest.raises(HarnessError, match=r"too large.*to 1000000"):
        MiniHotpotQA(documents=10**9).load(None, "test", None)
    with pytest.raises(HarnessError, match=r"questions=1 or more"):
        list(MiniHotpotQA(questions=0).load(None, "test", None).questions)
    with pytest.raises(HarnessError, match="no 5000 such questions"):
        list(MiniTriviaQA(documents=100, questions=5000).load(None, "test", None).questions)
    with pytest.raises(HarnessError, match="Leave --from out"):
        MiniHotpotQA().load(Path(), "test", None)


NAMES = [name for name in TABLE if name.startswith("mini-")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("split", "profile"), [("test", "hard"), ("dev", "shift")])
def test_a_mini_task_runs_with_options(tmp_path: Path, name: str, split: str, profile: str) -> None:
    spelled = f"{name}:documents=300,questions=20,seed=1,profile={profile}"
    folder = api.run(
        [spelled], ["random"], out=tmp_path / "run", data=tmp_path / "data", split=split
    )
    api.score(folder)
    found = [record for record in api.records([folder]) if record.system == "random"]
    assert found and {record.n for record in found} == {20}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("documents=50", r"50 documents is too small.*documents=100"),
        ("documents=abc", r"documents=abc is wrong.*valid integer"),
        ("document=300", r"no option 'document'.*'documents'"),
        ("profile=easy", r"profile=easy is wrong.*'standard', 'hard' or 'shift'"),
    ],
)
def test_a_wrong_option_is_one_sentence(tmp_path: Path, option: str, said: str) -> None:
    with pytest.raises(HarnessError, match=said) as error:
        api.run([f"mini-hotpotqa:{option}"], ["random"], out=tmp_path / "run", data=tmp_path / "d")
    assert len(error.value.sentences) == 1


def test_every_mini_task_is_in_the_table() -> None:
    assert {kind().name for kind in (*TASKS, MiniTriviaQALong, MiniForms)} == set(NAMES)


def test_an_answer_has_the_form_of_its_task_and_nothing_else_tells_which() -> None:
    size = {"documents": 400, "questions": 40}
    by, at = (questions_of(MiniForms, opens=opens, closes="one", **size) for opens in ("by", "at"))
    for opens, found in (("by", by), ("at", at)):
        for each in found:
            for answer in each.answers:
                assert answer.startswith(f"{opens} ") and answer.endswith(" one")
                said = answer.removeprefix(f"{opens} ").removesuffix(" one")
                gold = [c.document.text for c in each.candidates if c.grade]
                assert len(gold) == 1 and (said in gold[0] or answer != each.answers[0])
    assert MiniForms(opens="by").instruction == MiniForms(opens="at").instruction
    assert len({each.text for each in by} & {each.text for each in at}) < 10
    made = api.prepare("mini-forms:opens=by,closes=one,documents=400,questions=40")
    with pytest.raises(HarnessError, match="opens=beside is wrong"):
        api.prepare("mini-forms:opens=beside")
    assert made.exists()
