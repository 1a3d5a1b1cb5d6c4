"""Ranking metrics: closed-form floors, ties, graded data."""

from __future__ import annotations

import math
import random

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
    names, draws = ("nDCG@10", "RR", "AP", "R@5", "P@5", "Success@3"), 4000
    grades = {"a": 3, "b": 1, "c": 2, "d": 0, "gone": 2}
    docs = ["a", "b", "c", "d", *(f"x{i}" for i in range(11))]
    rng = random.Random(0)
    runs = {str(i): rng.sample(docs, len(docs)) for i in range(draws)}
    values = ranking.evaluate(runs, dict.fromkeys(runs, grades), names, rel=2)
    here = {d: g for d, g in grades.items() if d in docs}
    for name, floor in ranking.floors(grades, here, len(docs), names, 2).items():
        mean = sum(each[name] for each in values.values()) / draws
        spread = math.sqrt(sum((v[name] - mean) ** 2 for v in values.values())) / draws
        assert abs(mean - floor) < 4 * spread, name


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
