"""One canonical shape: what came in another order, under other ids or twice is the same data."""

from __future__ import annotations

import gc
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Toy, toy_questions

from harness import api, registry
from harness.canonical import (
    document_names,
    named_questions,
    open_corpus,
    open_questions,
    read_about,
    read_gold,
    read_labels,
    source_order,
)
from harness.data import Brief, Candidate, Document, HarnessError, Hit, Loaded, Query, RawQuestion
from harness.score.results import CEILING
from harness.spelling import parse_spelled


class Given(Toy):
    """The toy task over questions that a test made."""

    questions: tuple[RawQuestion, ...] = ()
    documents: tuple[Document, ...] = ()

    def __init__(self) -> None:
        pass

    def load(self, source, split, limit) -> Loaded:
        return Loaded(self.questions, self.documents)


def prepare(questions, documents=(), group_by="question", data="data") -> Path:
    attributes = {
        "questions": tuple(questions),
        "documents": tuple(documents),
        "group_by": group_by,
    }
    registry.register("tasks", "given")(type("Given", (Given,), attributes))
    return api.prepare("given", data=Path(data))


def scores(questions) -> list[tuple[str, str, float]]:
    prepare(questions)
    folder = api.run(["given"], ["bm25", "bm25:idf=pool"], out=f"r{random.random()}")
    api.score(folder)
    return [(r.system, r.metric, r.value) for r in api.records(folder)]


def shuffled_pools(questions):
    rng = random.Random(1)
    return [replace(q, candidates=tuple(rng.sample(q.candidates, 5))) for q in questions]


def with_copies(questions):
    """Every pool holds a second copy of a passage, ungraded."""
    return [
        replace(q, candidates=(*q.candidates, replace(q.candidates[0], grade=0))) for q in questions
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda qs: qs[::-1],
        shuffled_pools,
        with_copies,
        lambda qs: [replace(q, id=f"other-{n * 37 % 41}") for n, q in enumerate(qs)],
    ],
    ids=["permuted", "shuffled pools", "copies", "renamed"],
)
def test_what_means_the_same_has_the_same_fingerprint_and_scores(change) -> None:
    questions = toy_questions()
    assert prepare(change(questions)).name == prepare(questions).name
    assert scores(change(questions)) == scores(questions)


@pytest.mark.parametrize(
    "change",
    [
        lambda q: replace(q, text=q.text + "!"),
        lambda q: replace(q, answers=("elsewhere",)),
        lambda q: replace(q, candidates=q.candidates[:-1]),
        lambda q: replace(q, candidates=(*q.candidates[:-1], replace(q.candidates[-1], grade=1))),
    ],
)
def test_what_means_something_else_has_another_fingerprint(change) -> None:
    first, *rest = toy_questions()
    assert prepare([change(first), *rest]).name != prepare([first, *rest]).name


def test_equal_titles_with_different_texts_stay_two_documents() -> None:
    pool = (
        Candidate(Document("", "Paris is in Texas.", "Paris"), 1),
        Candidate(Document("", "Paris is in France.", "Paris")),
    )
    folder = prepare([RawQuestion("a", "Where?", pool)])
    assert read_about(folder)["documents"] == 2
    (gold,) = read_gold(folder).values()
    assert sorted(gold.relevance.values()) == [0, 1]


def test_copies_in_a_pool_keep_the_highest_grade_and_are_counted() -> None:
    copy = Document("", "same", "T")
    pool = (Candidate(copy, 0), Candidate(copy, 2), Candidate(copy, 1))
    folder = prepare([RawQuestion("a", "Where?", pool)])
    (gold,) = read_gold(folder).values()
    assert list(gold.relevance.values()) == [2]
    assert sum(read_about(folder)["notes"].values()) == 2


def test_rows_of_one_question_are_merged_and_counted() -> None:
    one, two = Candidate(Document("", "one"), 1), Candidate(Document("", "two"))
    rows = [
        RawQuestion("a", "Where?", (one,), answers=("x",)),
        RawQuestion("a", "Where?", (two,), answers=("x", "y")),
    ]
    folder = prepare(rows)
    ((_, gold),) = read_gold(folder).items()
    assert gold.answers == ("x", "y")
    assert len(gold.relevance) == 2
    assert read_about(folder)["notes"]["rows merged (same question id)"] == 1


def test_the_order_of_the_rows_is_kept_beside_the_sorted_data() -> None:
    questions = toy_questions()
    questions[3] = replace(questions[3], candidates=(*questions[3].candidates[1:], *PAIR))
    folder = prepare(questions[::-1])
    names = named_questions(folder)
    assert [names[each].native for each in source_order(folder)] == [q.id for q in questions[::-1]]
    assert prepare(questions) == folder
    assert [names[each].native for each in source_order(folder)] == [q.id for q in questions]
    (named,) = [each for each in names.values() if each.native == "native-3"]
    assert [name for name, _ in named.passages] == ["7", "6"]
    assert len({doc_id for _, doc_id in named.passages}) == 1


PAIR = (Candidate(Document("", "same"), 0, "7"), Candidate(Document("", "same"), 1, "6"))
"""Two copies of one passage, each with its own name."""


def test_documents_have_their_native_names_or_their_own() -> None:
    docs = [Document("d1", "one"), Document("d2", "two")]
    folder = prepare([RawQuestion("a", "one?", relevance={"d1": 1, "gone": 1})], docs)
    corpus = open_corpus(folder)
    (gold,) = read_gold(folder).values()
    found = document_names(folder, corpus, [*corpus.ids, *gold.relevance])
    assert {corpus[each].text: found[each] for each in corpus.ids} == {"one": "d1", "two": "d2"}
    assert sorted(found[each] for each in gold.relevance) == ["d1", "gone"]
    pooled = prepare([RawQuestion("a", "one?", (Candidate(Document("", "one"), 1),))], data="other")
    (doc_id,) = open_corpus(pooled).ids
    assert document_names(pooled, open_corpus(pooled), [doc_id]) == {doc_id: doc_id}


def test_labels_stand_beside_the_gold_and_change_no_fingerprint() -> None:
    plain = toy_questions()
    named = [replace(q, labels={"question type": f"sort {n % 2}"}) for n, q in enumerate(plain)]
    folder = prepare(plain)
    assert read_labels(folder) == {each: {} for each in named_questions(folder)}
    assert prepare(named) == folder
    natives = {i: each.native for i, each in named_questions(folder).items()}
    assert read_labels(folder) == {
        i: {"question type": f"sort {int(native.rpartition('-')[2]) % 2}"}
        for i, native in natives.items()
    }
    before = (folder / "labels.jsonl").read_bytes()
    assert prepare(named[::-1]) == folder and (folder / "labels.jsonl").read_bytes() == before
    for broken in ("{", '{"id": "x"}', '{"id": "x", "labels": {"hops": 2}}', "3"):
        (folder / "labels.jsonl").write_text(broken + "\n")
        with pytest.raises(HarnessError, match=r"labels.jsonl .* [Pp]repare the task again"):
            read_labels(folder)
    (folder / "labels.jsonl").unlink()
    assert read_labels(folder) is None


def test_of_merged_rows_the_same_labels_stay_whatever_their_order() -> None:
    first, *rest = toy_questions()
    twice = [replace(first, labels={"level": each}) for each in ("hard", "easy")]
    found = []
    for rows in (twice, twice[::-1]):
        labels = read_labels(prepare([*rows, *rest]))
        found.append([each for each in (labels or {}).values() if each])
    assert found == [[{"level": "easy"}]] * 2


def test_an_id_that_stands_for_two_questions_is_refused_with_both_places() -> None:
    pool = (Candidate(Document("", "one"), 1),)
    rows = [
        RawQuestion("a", "Where?", pool, where="f:1"),
        RawQuestion("a", "When?", pool, where="f:2"),
    ]
    with pytest.raises(HarnessError, match="f:2: the id 'a' stands at f:1"):
        prepare(rows)


def test_questions_with_the_same_text_and_pool_stay_two() -> None:
    pool = (Candidate(Document("", "one"), 1),)
    folder = prepare([RawQuestion("a", "Where?", pool), RawQuestion("b", "Where?", pool)])
    assert len(read_gold(folder)) == 2


@pytest.mark.parametrize(
    ("questions", "said"),
    [
        ([], "no questions are left"),
        ([RawQuestion("a", " ", where="f:3")], "f:3: the question is empty"),
        ([RawQuestion("a", "Where?")], "no documents are left"),
    ],
)
def test_nothing_to_prepare_is_one_sentence_and_leaves_no_trace(questions, said) -> None:
    with pytest.raises(HarnessError, match=said):
        prepare(questions)
    assert not any(path.is_file() for path in Path("data").rglob("*"))


def test_a_failure_keeps_what_was_prepared_before() -> None:
    before = prepare(toy_questions())
    with pytest.raises(HarnessError):
        prepare([RawQuestion("a", "")])
    assert (before / "gold.jsonl").exists()
    assert json.loads(Path("data/given/test.json").read_text())["fingerprint"] == before.name


def test_a_corpus_of_one_document_can_be_run() -> None:
    prepare([RawQuestion("a", "one?", (Candidate(Document("", "one"), 1),))])
    for setting in ("pool", "corpus"):
        folder = api.run(["given"], ["bm25", "random", "bm25@9+random"], setting=setting)
        api.score(folder)
        assert {r.value for r in api.records(folder) if r.metric == "nDCG@10"} == {1.0}


def test_judged_documents_without_text_count_in_the_ideal_ranking_only() -> None:
    docs = [Document("d1", "one"), Document("d2", "two")]
    folder = prepare([RawQuestion("a", "one?", relevance={"d1": 1, "gone": 1})], docs)
    (gold,) = read_gold(folder).values()
    assert len(gold.relevance) == 2
    run = api.run(["given"], ["bm25"], setting="corpus")
    api.score(run)
    (value,) = [r.value for r in api.records(run) if r.metric == "nDCG@10"]
    best = 1 / (1 + 1 / 1.584962500721156)
    assert value == pytest.approx(best)
    lines = [json.loads(line) for line in (run / "scores.jsonl").open()]
    (ceiling,) = [line for line in lines if line["system"] == CEILING]
    assert ceiling["metrics"]["nDCG@10"] == pytest.approx(best)
    assert ceiling["metrics"]["R@2"] == 0.5


def test_a_grade_beyond_all_measure_is_refused() -> None:
    pool = (Candidate(Document("", "one"), 2**40),)
    with pytest.raises(HarnessError, match="f:1: 'a' has a document of grade"):
        prepare([RawQuestion("a", "Where?", pool, where="f:1")])


def test_questions_are_grouped_by_the_gold_document_most_of_them_share() -> None:
    def asked(name: str, *gold: str) -> RawQuestion:
        pool = tuple(Candidate(Document("", text), 1) for text in gold)
        return RawQuestion(name, f"{name}?", (*pool, Candidate(Document("", "common"))))

    questions = [asked("a", "x", "y"), asked("b", "y", "z"), asked("c", "w"), asked("d", "z")]
    golds = read_gold(prepare(questions, group_by="documents")).values()
    assert sorted(map(len, _by_group(golds))) == [1, 1, 2]
    alone = read_gold(prepare(questions)).values()
    assert sorted(map(len, _by_group(alone))) == [1, 1, 1, 1]


def _by_group(golds) -> list[list[object]]:
    groups: dict[str, list[object]] = {}
    for gold in golds:
        groups.setdefault(gold.group, []).append(gold)
    return list(groups.values())


# --- gold never reaches a system ------------------------------------------------------

SEEN: list[object] = []


class Spy:
    """Keeps everything it is given."""

    def build(self, corpus, folder, brief) -> None:
        SEEN.extend([corpus, folder, brief])

    def open(self, corpus, folder, brief) -> None:
        SEEN.extend([corpus, folder, brief])

    def retrieve(self, queries, k):
        SEEN.extend([queries, k])
        return [[Hit(d, 0.0) for d in (q.pool or ())[:k]] for q in queries]

    def answer(self, queries, documents):
        SEEN.extend([queries, documents])
        return [""] * len(queries)


def reachable(things: list[object]) -> str:
    """All text that can be reached from these objects through the garbage collector's eyes."""
    texts, seen, waiting = [], set(), list(things)
    stop = (type, type(json), type(reachable))
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, stop):
            continue
        seen.add(id(thing))
        if isinstance(thing, str):
            texts.append(thing)
        elif isinstance(thing, bytes | bytearray):
            texts.append(thing.decode("utf-8", "replace"))
        elif isinstance(thing, Path):
            texts.append(str(thing))
            texts.extend(map(str, thing.parent.rglob("*")))
        else:
            waiting.extend(gc.get_referents(thing))
    return "\n".join(texts)


def test_a_spy_finds_no_gold_no_task_name_and_no_native_id() -> None:
    SEEN.clear()
    questions = [
        replace(q, id=f"NATIVE{n}", answers=(f"GOLDANSWER{n}",), sentences=((f"GOLDTITLE{n}", 0),))
        for n, q in enumerate(toy_questions())
    ]
    prepare(questions)
    registry.register("systems", "spy")(Spy)
    for setting in ("pool", "corpus"):
        api.run(["given"], ["spy"], setting=setting)
    text = reachable(SEEN).replace(str(Path.cwd()), "")
    assert "Where stands the" in text
    for secret in ("GOLDANSWER", "GOLDTITLE", "NATIVE", "given", "gold", "test"):
        assert secret not in text, secret
    pools = [q.pool for thing in SEEN if isinstance(thing, tuple | list) for q in thing
             if isinstance(q, Query) and q.pool]  # fmt: skip
    assert pools and all(list(pool) == sorted(pool) for pool in pools)
    assert any(isinstance(thing, Brief) for thing in SEEN)


def test_what_run_opens_has_no_gold_in_it() -> None:
    secret = {"answers": ("GOLDANSWER",), "labels": {"type": "GOLDANSWER"}}
    folder = prepare([replace(q, **secret) for q in toy_questions()])
    task = registry.task(parse_spelled("given"))
    questions = open_questions(folder, task, "test", "pool")
    assert "GOLDANSWER" not in reachable([questions.queries, questions.corpus])
