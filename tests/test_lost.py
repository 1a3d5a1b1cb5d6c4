"""Where answers were lost: each planted run falls into its class, and the classes sum to n."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from test_scoring import a_run, entry, first, queries

from harness.canonical import read_gold
from harness.data import Answer, Gold, Hit, Row
from harness.prepare import prepare
from harness.report.cases import cases
from harness.report.lost import CLASSES, MEANING, lost, reworded, tells
from harness.score.scoring import score

TWO = Gold({"a": 1, "b": 1, "c": 0}, ("the north gate",))
ANY = replace(TWO, kind="sparse")
HITS = (Hit("a", 3.0), Hit("c", 2.0), Hit("b", 1.0))


def of(row: Row | None, gold: Gold = TWO, right: float | None = 0.0, told: bool = True) -> str:
    return lost(row, gold, right, 1, told)


def answered(text: str = "elsewhere", read: str = "", hits: tuple[Hit, ...] = HITS) -> Row:
    return Row("q", hits, Answer(text), read=tuple(read))


def test_what_was_read_decides_and_not_what_was_ranked() -> None:
    assert of(answered(read="ab")) == "not used"
    assert of(answered(read="a")) == "not read"
    assert of(answered(read="")) == "not read"
    assert of(answered(hits=HITS[:2], read="ac")) == "not retrieved"
    assert of(answered(hits=(), read="ab")) == "not used"
    assert of(answered(hits=(), read="c")) == "not retrieved"


def test_of_gold_that_is_not_complete_any_passage_will_do() -> None:
    assert of(answered(read="a"), ANY) == "not used"
    assert of(answered(hits=HITS[:2], read="c"), ANY) == "not read"
    assert of(answered(hits=HITS[1:2], read="c"), ANY) == "not retrieved"


def test_only_a_grade_that_counts_makes_a_passage_gold() -> None:
    gold = Gold({"a": 2, "b": 1}, ("x",))
    assert lost(answered(read="a"), gold, 0.0, 2, True) == "not used"
    assert lost(answered(read="a"), gold, 0.0, 1, True) == "not read"
    assert lost(answered(read="a"), gold, 0.0, 3, True) == "no gold passage"


def test_an_answer_that_is_there_in_other_words_was_not_lost_on_the_way() -> None:
    assert of(answered("by the North Gate, surely")) == "worded otherwise"
    assert of(answered("gate")) == "worded otherwise"
    assert of(answered("northern gates", "ab")) == "not used"
    assert of(answered("by the north gate"), right=1.0) == "right"


@pytest.mark.parametrize(
    ("answer", "accepted", "is_so"),
    [
        ("", ("x",), False),
        ("the", ("x",), False),
        ("x", ("", "a"), False),
        ("no", ("know nothing",), False),
        ("no", ("no idea",), True),
    ],
)
def test_words_are_whole_and_empty_ones_are_nothing(answer, accepted, is_so) -> None:
    assert reworded(answer, accepted) is is_so


def test_a_question_that_failed_or_cannot_be_judged_is_told_so() -> None:
    assert of(None) == of(Row("q", HITS, error="broke")) == "failed"
    assert of(answered(), right=None) == "not judged"
    assert of(answered(), Gold({"c": 0}, ("x",))) == "no gold passage"


def test_a_system_that_does_not_say_what_it_reads_is_not_said_to_read_nothing() -> None:
    assert of(answered(), told=False) == "reading unknown"
    assert of(answered(hits=()), told=False) == "reading unknown"
    assert of(answered(hits=HITS[:2]), told=False) == "not retrieved"
    assert tells("bm25+speaker@0", [answered()])
    assert tells("bm25+speaker", [answered(), answered(read="a")])
    assert not tells("bm25+speaker", [answered()])


def test_every_class_is_explained() -> None:
    assert set(MEANING) == set(CLASSES)


def planted(query: Mapping[str, Any], gold: Gold, kind: str) -> Row:
    """A row of the toy task, whose first gold passage was lost in the way that is asked for."""
    (right,) = [doc_id for doc_id, grade in gold.relevance.items() if grade]
    others = [doc_id for doc_id in query["pool"] if doc_id != right]
    ids = [right, *others] if kind != "not retrieved" else others
    hits = tuple(Hit(doc_id, -float(place)) for place, doc_id in enumerate(ids))
    read = {"not read": others[:2], "not retrieved": others[:2]}.get(kind, [right])
    said = {"right": gold.answers[0], "worded otherwise": f"it is {gold.answers[0]} there"}
    error = "broke" if kind == "failed" else ""
    text = said.get(kind, "nowhere")
    return Row(query["id"], hits, Answer(text), read=tuple(read), error=error)


def test_planted_runs_fall_into_their_classes_and_sum_to_the_questions() -> None:
    kinds = ("right", "worded otherwise", "not used", "not read", "not retrieved", "failed")
    golds = read_gold(prepare("toy"))
    asked = queries()
    meant = {query["id"]: kinds[n % 6] for n, query in enumerate(asked)}
    rows = [planted(query, golds[query["id"]], meant[query["id"]]) for query in asked]
    described = entry("bm25+toyreader@2", answers=True, rows="one/rows.jsonl")
    (table,) = cases(score(a_run((described, rows))))
    found = {case.id: case.outcomes["bm25+toyreader@2"].lost for case in table.cases}
    assert found == meant
    assert sum(Counter(found.values()).values()) == len(asked) == 40


def test_what_does_not_answer_loses_no_answer() -> None:
    folder = score(a_run((entry("one"), [first(query) for query in queries()])))
    (table,) = cases(folder)
    assert {case.outcomes["one"].lost for case in table.cases} == {None}
