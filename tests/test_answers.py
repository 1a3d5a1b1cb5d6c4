"""What one question's scores promise, whatever the answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import Answer, Gold, HarnessError
from harness.score import answers
from harness.score.answers import ALL, NOTHING, Overlap
from harness.score.normalise import squad_normal, triviaqa_normal

TRAPS = ["the ", "A", "yes", "no-answer", "O'Neill", "’", "U.S.", "é", "北", " ", "\u00a0", "lamp "]
TEXT = st.lists(st.sampled_from(TRAPS) | st.text(max_size=4), max_size=6).map("".join)
FACTS = st.lists(st.tuples(st.sampled_from(["Kiln", "kiln", "Bay"]), st.integers(0, 2)), max_size=5)
COMPARISONS = [
    (answers.squad_answer, squad_normal),
    (answers.hotpotqa_answer, squad_normal),
    (answers.musique_answer, squad_normal),
    (answers.triviaqa_answer, triviaqa_normal),
]
METRICS = ("EM", "F1", "Precision", "Recall")


def under(*prefixes: str) -> set[str]:
    return {prefix + metric for prefix in prefixes for metric in METRICS}


@pytest.mark.parametrize(("compare", "normal"), COMPARISONS)
@settings(max_examples=300, deadline=None)
@given(prediction=TEXT, gold=TEXT)
def test_f1_is_at_least_em_unless_the_normalised_gold_is_empty(compare, normal, prediction, gold):
    for predicted in (prediction, gold, gold.upper()):
        found = compare(predicted, gold)
        assert all(0 <= number <= 1 for number in found)
        if normal(gold) or compare is answers.musique_answer:
            assert found.f1 >= found.em
        else:
            assert found.f1 == 0


@pytest.mark.parametrize(("compare", "normal"), COMPARISONS)
@settings(max_examples=200, deadline=None)
@given(prediction=TEXT, gold=TEXT)
def test_swapping_prediction_and_gold_swaps_precision_and_recall(compare, normal, prediction, gold):
    there, back = compare(prediction, gold), compare(gold, prediction)
    assert (there.em, there.precision, there.recall) == (back.em, back.recall, back.precision)
    assert there.f1 == pytest.approx(back.f1)
    low, high = sorted((there.precision, there.recall))
    assert low - 1e-12 <= there.f1 <= high + 1e-12


@pytest.mark.parametrize(("compare", "normal"), COMPARISONS)
@settings(max_examples=100, deadline=None)
@given(prediction=TEXT, golds=st.lists(TEXT, min_size=1, max_size=4), more=TEXT)
def test_one_more_accepted_answer_never_lowers_a_score(compare, normal, prediction, golds, more):
    fewer = answers.against(compare, prediction, golds)
    all_of_them = answers.against(compare, prediction, [*golds, more])
    assert all(x <= y for x, y in zip(fewer, all_of_them, strict=True))


@settings(max_examples=200, deadline=None)
@given(predicted=FACTS, gold=FACTS)
def test_order_and_duplicates_of_support_change_nothing(predicted, gold):
    for compare in (answers.hotpotqa_support, answers.musique_support, answers.wiki2_support):
        assert compare(predicted, gold) == compare(predicted[::-1] * 2, gold[::-1])


def test_the_same_text_is_told_apart_by_scorers():
    assert answers.squad_answer("O'Neill", "ONeill").em == 1
    assert answers.triviaqa_answer("O'Neill", "ONeill").em == 0
    assert answers.triviaqa_answer("O’Neill", "O Neill").em == 1
    assert answers.squad_answer("yes it is", "yes").f1 == pytest.approx(0.5)
    assert answers.musique_answer("yes it is", "yes").f1 == pytest.approx(0.5)
    assert answers.hotpotqa_answer("yes it is", "yes").f1 == 0
    assert answers.musique_answer("the", "...") == ALL
    assert answers.squad_answer("the", "...") == NOTHING._replace(em=1.0)


def test_numbers_are_maximised_over_answers_separately():
    found = answers.best([Overlap(1, 0.2, 0.9, 0.1), Overlap(0, 0.4, 0.3, 0.6)])
    assert found == Overlap(1, 0.4, 0.9, 0.6)


def test_no_gold_answer_is_a_clear_error():
    with pytest.raises(HarnessError, match="no gold answer"):
        answers.against(answers.squad_answer, "lamp", [])


# --- what tasks get -----------------------------------------------------------------------

GOLD = Gold(
    {},
    ("Marrow Lake",),
    (("Kiln", 0), ("Bay", 1)),
    ((("Kiln", "The Kiln"), "director", ("Tove",)),),
)
SUPPORT = [("Kiln", 0), ("Bay", 1)]
TRIPLES = (("the kiln", "director", "tove"),)


def test_a_perfect_answer_scores_one_everywhere():
    given_answer = Answer("The Marrow Lake.", triples=TRIPLES)
    for score in (
        answers.score_hotpotqa,
        answers.score_2wikimultihopqa,
        answers.score_musique,
        answers.score_triviaqa,
        answers.score_squad,
    ):
        assert set(score(given_answer, SUPPORT, GOLD).values()) == {1.0}


def test_hotpotqa_leaves_out_what_the_system_or_the_gold_does_not_say():
    score, answer = answers.score_hotpotqa, Answer("lake")
    assert score(answer, SUPPORT, GOLD).keys() == under("", "SP-", "Joint-")
    assert score(answer, None, GOLD).keys() == under("")
    assert score(answer, [], GOLD)["SP-F1"] == 0
    assert score(answer, SUPPORT, Gold({}, ("lake",))).keys() == under("")
    assert score(answer, SUPPORT, Gold({}, (), (("Kiln", 0),))).keys() == under("SP-")
    assert score(answer, SUPPORT, Gold({})) == {}


def test_2wiki_joins_answer_support_and_evidence_or_nothing():
    score, capped = answers.score_2wikimultihopqa, {"Evi-F1-capped"}
    whole = under("", "SP-", "Evi-", "Joint-") | capped
    assert score(Answer("lake", triples=TRIPLES), SUPPORT, GOLD).keys() == whole
    assert score(Answer("lake", triples=()), SUPPORT, GOLD).keys() == whole
    assert score(Answer("lake"), SUPPORT, GOLD).keys() == under("", "SP-")
    assert score(Answer("lake", triples=TRIPLES), None, GOLD).keys() == under("", "Evi-") | capped
    no_triples = Gold({}, ("lake",), (("Kiln", 0),))
    assert score(Answer("lake", triples=TRIPLES), SUPPORT, no_triples).keys() == under("", "SP-")


def test_2wiki_reports_the_official_evidence_f1_above_one_and_a_capped_one():
    twice = Answer(
        "Marrow Lake", triples=(("the kiln", "director", "tove"), ("Kiln", "director", "Tove"))
    )
    scores = answers.score_2wikimultihopqa(twice, SUPPORT, GOLD)
    assert scores["Evi-Recall"] == 2
    assert scores["Evi-F1"] == pytest.approx(4 / 3)
    assert scores["Joint-F1"] == pytest.approx(4 / 3)
    assert scores["Evi-F1-capped"] == pytest.approx(2 / 3)


def test_the_capped_evidence_f1_finds_the_best_assignment():
    first, second = (("a", "b"), "r", ("x",)), (("a",), "r", ("x",))
    # "a" fits both, "b" only the first: a greedy match in this order would find one pair.
    for predicted in ([("a", "r", "x"), ("b", "r", "x")], [("b", "r", "x"), ("a", "r", "x")]):
        assert answers.wiki2_evidence_capped(predicted, [first, second]) == 1
        assert answers.wiki2_evidence_capped(predicted, [second, first]) == 1


def test_musique_scores_answerable_questions_only():
    answer = Answer("lake")
    assert answers.score_musique(answer, SUPPORT, GOLD).keys() == {"EM", "F1", "SP-EM", "SP-F1"}
    assert answers.score_musique(answer, None, GOLD).keys() == {"EM", "F1"}
    unanswerable = Gold({}, ("lake",), (("Kiln", 0),), answerable=False)
    assert answers.score_musique(answer, SUPPORT, unanswerable) == {}
    assert answers.score_musique(answer, [], Gold({}, (), ()))["SP-F1"] == 1


def test_triviaqa_and_squad_take_the_best_accepted_answer():
    gold = Gold({}, ("lamp", "kiln lake"))
    for score in (answers.score_triviaqa, answers.score_squad):
        found = score(Answer("lake"), None, gold)
        assert found == {"EM": 0, "F1": pytest.approx(2 / 3)}
        assert score(Answer("lake"), SUPPORT, Gold({})) == {}
