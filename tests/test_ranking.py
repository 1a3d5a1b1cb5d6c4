"""Ranking metrics: closed-form floors, ties, graded data."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys

import pytest

from harness.data import HarnessError
from harness.score import ranking

# (pool, relevant): nDCG@10, nDCG@5, RR@10, AP, R@1, R@2, R@5, R@10, Success@1, 2, 5, 10
TABLE = {
    (10, 2): (0.5572, 0.3616, 0.4287, 0.3715, 0.1, 0.2, 0.5, 1.0, 0.2, 0.3778, 0.7778, 1.0),
    (20, 2): (0.2786, 0.1808, 0.2557, 0.2231, 0.05, 0.1, 0.25, 0.5, 0.1, 0.1947, 0.4474, 0.7632),
    (20, 3): (0.3198, 0.2075, 0.3412, 0.2662, 0.05, 0.1, 0.25, 0.5, 0.15, 0.2842, 0.6009, 0.8947),
    (20, 4): (0.3547, 0.2302, 0.4116, 0.3094, 0.05, 0.1, 0.25, 0.5, 0.2, 0.3684, 0.7183, 0.9567),
    (10, 4): (0.7095, 0.4604, 0.6261, 0.5286, 0.1, 0.2, 0.5, 1.0, 0.4, 0.6667, 0.9762, 1.0),
    (10, 1): (0.4544, 0.2948, 0.2929, 0.2929, 0.1, 0.2, 0.5, 1.0, 0.1, 0.2, 0.5, 1.0),
}  # fmt: skip
NAMES = (
    "nDCG@10", "nDCG@5", "RR@10", "AP", "R@1", "R@2", "R@5", "R@10",
    "Success@1", "Success@2", "Success@5", "Success@10",
)  # fmt: skip


@pytest.mark.parametrize("shape", TABLE)
def test_floors_are_those_of_all_placements(shape: tuple[int, int]) -> None:
    n, relevant = shape
    grades = {f"d{i}": 1 for i in range(relevant)}
    found = ranking.floors(grades, grades, n, NAMES, 1)
    assert [round(found[name], 4) for name in NAMES] == list(TABLE[shape])


def test_floors_meet_sampled_random_orders_on_graded_data_with_unreachable_documents() -> None:
    names, draws = ("nDCG", "nDCG@10", "RR", "RR@3", "AP", "R@5", "P@5", "P@20", "Success@3"), 4000
    grades = {"a": 3, "b": 1, "c": 2, "d": 0, "gone": 2}
    docs = ["a", "b", "c", "d", *(f"x{i}" for i in range(11))]
    rng = random.Random(0)
    runs = {str(i): rng.sample(docs, len(docs)) for i in range(draws)}
    # Measures without a closed form are asked for too: a floor that they get must be right.
    asked = (*names, "AP@3", "nDCG(gains={1:0,2:1,3:10})@10", "Rprec", "Bpref", "SetP", "infAP")
    here = {d: g for d, g in grades.items() if d in docs}
    for rel in (1, 2):
        values = ranking.evaluate(runs, dict.fromkeys(runs, grades), asked, rel)
        found = ranking.floors(grades, here, len(docs), asked, rel)
        assert list(found) == [str(ranking.measure(name, rel)) for name in names]
        for name, floor in found.items():
            mean = sum(each[name] for each in values.values()) / draws
            spread = math.sqrt(sum((v[name] - mean) ** 2 for v in values.values())) / draws
            assert abs(mean - floor) <= 4 * spread + 1e-9, name


@pytest.mark.parametrize(
    "grades", [{}, {"a": 0}, {"gone": 1}, {"a": 1, "b": 1}], ids=["none", "zero", "gone", "all"]
)
def test_floors_of_questions_at_the_edge_are_those_of_a_ranking(grades: dict[str, int]) -> None:
    here = {d: g for d, g in grades.items() if d != "gone"}
    found = ranking.floors(grades, here, 2, NAMES, 1)
    orders = {"q": ["a", "b"], "r": ["b", "a"]}
    values = ranking.evaluate(orders, dict.fromkeys(orders, grades), NAMES)
    for name in NAMES:
        assert found[name] == pytest.approx((values["q"][name] + values["r"][name]) / 2), name


def test_ties_cannot_make_rr_rr10_and_p1_disagree() -> None:
    ranked = {str(i): [f"d{(i + j) % 10}" for j in range(10)] for i in range(10)}
    values = ranking.evaluate(ranked, {key: {"d0": 1} for key in ranked}, ("RR", "RR@10", "P@1"))
    for query_id, each in values.items():
        rank = ranked[query_id].index("d0") + 1
        assert each["RR"] == pytest.approx(1 / rank) == each["RR@10"]
        assert each["P@1"] == (rank == 1)


def test_ir_measures_never_sees_a_tie(monkeypatch) -> None:
    import ir_measures

    seen = []
    real = ir_measures.iter_calc
    monkeypatch.setattr(
        ir_measures, "iter_calc", lambda m, q, run: seen.append(run) or real(m, q, run)
    )
    ranking.evaluate({"q": ["a", "b", "c"]}, {"q": {"b": 1}}, ("nDCG@10", "RR@10", "AP"))
    assert seen
    assert all(len(set(scores.values())) == len(scores) for run in seen for scores in run.values())


def test_gains_of_one_metric_are_not_those_of_another() -> None:
    """ir-measures mixes them up where they are asked for together, in half of all processes."""
    gains = "nDCG(gains={1:0,2:1,3:10})@10"
    script = (
        "from harness.score.ranking import evaluate\n"
        "found = evaluate({'q': list('xabc')}, {'q': {'a': 3, 'b': 1, 'c': 2}}, "
        f"('nDCG@10', {gains!r}))\nprint(*(round(v, 4) for v in found['q'].values()))"
    )
    for seed in range(6):
        said = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout == "0.6834 0.634\n"


def test_graded_data_counts_only_high_grades_where_relevance_is_yes_or_no() -> None:
    values = ranking.evaluate(
        {"q": ["low", "high"]}, {"q": {"low": 1, "high": 2}}, ("RR", "R@1"), 2
    )
    assert values["q"] == {"RR(rel=2)": 0.5, "R(rel=2)@1": 0.0}


def test_a_question_without_a_ranking_scores_zero_and_stays() -> None:
    assert ranking.evaluate({}, {"q": {"a": 1}}, ("nDCG@10",)) == {"q": {"nDCG@10": 0.0}}


def test_unknown_metrics_are_all_told_with_a_suggestion() -> None:
    with pytest.raises(HarnessError) as error:
        ranking.check_measures(("nDGC@10", "AP", "R@@5"))
    assert len(error.value.sentences) == 2
    assert "nDCG@10" in error.value.sentences[0]


@pytest.mark.parametrize(
    "name",
    [
        "ERR@10", "nDCG(dcg='exp-log2')@10", "alpha_nDCG@10", "RR(judged_only=True)@10",
        "RBP(p=0.8)", "R", "P@2.5", "nDCG(foo=1)", "nDCG@True", "Accuracy@10", "Judged@10",
        "NumRet", "NumQ", "nDCG@0", "RR@0", "P@0", "P@99999999999", "AP(rel=99999999999)",
        "Rprec(rel=0)", "nDCG(gains={1:'x'})", "nDCG(gains={1:2.5})", "nDCG(gains={'a':1})",
        "nDCG@10\0", "", "1",
    ],
)  # fmt: skip
def test_what_cannot_be_computed_here_is_refused_in_one_sentence(name: str) -> None:
    """Some of these would end the process inside trec_eval's C code."""
    with pytest.raises(HarnessError) as error:
        ranking.check_measures((name,))
    assert len(error.value.sentences) == 1
    assert repr(name) in error.value.message


@pytest.mark.parametrize(
    "name",
    [
        "nDCG", "nDCG@3", "nDCG(gains={1:0,2:5})@3", "RR", "RR@2", "MRR@2", "AP", "AP@2", "R@2",
        "P@1", "Success@2", "Rprec", "SetP", "SetRelP", "SetR", "SetF(beta=2.)", "SetAP", "Bpref",
        "infAP", "IPrec@0.5", "AP(judged_only=True)", "P(judged_only=True)@2",
    ],
)  # fmt: skip
def test_what_is_let_in_has_values_and_a_name_that_reads_back(name: str) -> None:
    grades = {"a": 2, "b": 0, "c": 1}
    for rel in (1, 2):
        found = ranking.evaluate({"q": ["b", "a", "c"]}, {"q": grades}, (name,), rel)
        ((canonical, value),) = found["q"].items()
        assert 0 <= value <= 1
        assert ranking.measure(canonical, rel) == ranking.measure(name, rel)
        asks = "rel" in ranking.measure(name).SUPPORTED_PARAMS
        assert ranking.measure(name, rel).params.get("rel", 1) == (rel if asks else 1)


def test_a_grade_in_the_name_stands() -> None:
    assert str(ranking.measure("P(rel=3)@5", 2)) == "P(rel=3)@5"
