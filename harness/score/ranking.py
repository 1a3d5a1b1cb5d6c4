"""Ranking metrics through ir-measures, behind one door, with floors in closed form.

Scores that reach ir-measures are made from ranks and fall strictly: its providers break ties
differently, so that on tied scores RR and RR@10 of one call disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

import numpy as np

from harness.data import HarnessError, raise_together

Relevance = Mapping[str, Mapping[str, int]]
BY_GRADE = ("RR", "AP", "P", "R", "Success", "Rprec")
"""Measures that need to know from which grade a document is relevant."""


@cache
def measure(name: str, rel: int = 1) -> Any:
    """The ir-measures measure of a spelling such as ``nDCG@10``; for graded data, with ``rel``."""
    import ir_measures

    try:
        found = ir_measures.parse_measure(name)
    except (NameError, ValueError, SyntaxError) as error:
        close = get_close_matches(name, ("nDCG@10", "RR@10", "R@5", "P@1", "AP", "Success@1"), n=1)
        guess = (
            f"Did you mean {close[0]!r}?" if close else "Examples: nDCG@10, R@5, RR@10, P@1, AP."
        )
        raise HarnessError(f"there is no ranking metric {name!r}.", guess) from error
    if rel > 1 and found.NAME in BY_GRADE and "rel" not in found.params:
        found = found(rel=rel)
    return found


def check_measures(names: Sequence[str]) -> None:
    """Raise, for all unknown names together."""
    mistakes = []
    for name in names:
        try:
            measure(name)
        except HarnessError as error:
            mistakes.append(error)
    raise_together(mistakes)


def evaluate(
    rankings: Mapping[str, Sequence[str]], relevance: Relevance, names: Sequence[str], rel: int = 1
) -> dict[str, dict[str, float]]:
    """Value of every metric for every question of ``relevance``, by id and metric.

    rankings: document ids, best first; a question without a ranking scores 0
    """
    import ir_measures

    measures = [measure(name, rel) for name in names]
    values = {query_id: {str(each): 0.0 for each in measures} for query_id in relevance}
    if not measures or not relevance:
        return values
    run = {
        query_id: {doc_id: float(len(ranked) - place) for place, doc_id in enumerate(ranked)}
        for query_id in relevance
        if (ranked := rankings.get(query_id))
    }
    if run:
        for found in ir_measures.iter_calc(measures, _plain(relevance), run):
            values[found.query_id][str(found.measure)] = float(found.value)
    return values


def _plain(relevance: Relevance) -> dict[str, dict[str, int]]:
    return {query_id: dict(grades) for query_id, grades in relevance.items()}


def ideal(grades: Mapping[str, int], reachable: Sequence[str] | None) -> list[str]:
    """The best ranking possible: relevant documents by falling grade, if they can be reached.

    reachable: the ids that could be ranked; None for all
    """
    inside = None if reachable is None else set(reachable)
    found = [d for d, grade in grades.items() if grade > 0 and (inside is None or d in inside)]
    return sorted(found, key=lambda doc_id: (-grades[doc_id], doc_id))


def floors(
    grades: Mapping[str, int], reachable: Mapping[str, int], n: int, names: Sequence[str], rel: int
) -> dict[str, float]:
    """What a uniformly random order of ``n`` documents scores in expectation, in closed form.

    grades:    all judged documents of the question (they make the ideal ranking)
    reachable: those of them among the ``n``
    A metric without a closed form here is left out.
    """
    found = {}
    for name in names:
        each = measure(name, rel)
        value = _floor(
            each.NAME,
            each.params.get("cutoff"),
            tuple(sorted((g for g in grades.values() if g > 0), reverse=True)),
            tuple(sorted((g for g in reachable.values() if g > 0), reverse=True)),
            n,
            each.params.get("rel", 1),
        )
        if value is not None:
            found[str(each)] = value
    return found


@cache
def _floor(
    name: str, cutoff: int | None, ideal: tuple[int, ...], here: tuple[int, ...], n: int, rel: int
) -> float | None:
    relevant, total = sum(g >= rel for g in here), sum(g >= rel for g in ideal)
    k = min(cutoff or n, n)
    if name == "nDCG":
        discounts = 1 / np.log2(np.arange(2, max(k, len(ideal)) + 2))
        best = float(np.dot(ideal[: cutoff or len(ideal)], discounts[: len(ideal[:cutoff])]))
        return sum(here) / n * float(discounts[:k].sum()) / best if best else 0.0
    if not relevant:
        return 0.0 if name in BY_GRADE else None
    if name == "R":
        return k / n * relevant / total
    if name == "P":
        return relevant / n * k / (cutoff or n)
    if name in ("RR", "Success"):
        first = _first_hit(n, relevant, k)
        return float(np.dot(first, 1 / np.arange(1, k + 1)) if name == "RR" else first.sum())
    if name == "AP":
        harmonic = float((1 / np.arange(1, n + 1)).sum())
        others = (relevant - 1) / (n - 1) * (n - harmonic) if n > 1 else 0.0
        return (harmonic + others) / n * relevant / total
    return None


def _first_hit(n: int, relevant: int, k: int) -> Any:
    """Chance that the first relevant document stands at rank 1…k of a random order, (k,)."""
    ranks = np.arange(1, k)
    steps = np.maximum(n - ranks - relevant + 1, 0) / np.maximum(n - ranks, 1)
    return relevant / n * np.concatenate(([1.0], np.cumprod(steps)))
