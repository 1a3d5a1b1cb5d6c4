"""Ranking metrics through ir-measures, behind one door, with floors in closed form.

Scores that reach ir-measures are made from ranks and fall strictly: its providers break ties
differently, so that on tied scores RR and RR@10 of one call disagree. Only measures that
pytrec_eval (trec_eval's C code) or MS MARCO's own script computes are let in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import filterfalse
from typing import Any

import numpy as np

from harness.data import HarnessError, raise_together
from harness.score.outputs import is_output

Relevance = Mapping[str, Mapping[str, int]]
EXAMPLES = ("nDCG@10", "RR@10", "R@5", "P@1", "AP", "Success@1", "Rprec")
MOST = 2**31 - 1
"""The largest number that trec_eval's C code holds."""
CLOSED_FORM = {
    "nDCG": {"cutoff"},
    "RR": {"cutoff", "rel"},
    "R": {"cutoff", "rel"},
    "P": {"cutoff", "rel"},
    "Success": {"cutoff", "rel"},
    "AP": {"rel"},
}
"""The measures that `floors` knows, each with the parameters it may have."""


@cache
def measure(name: str, rel: int = 1) -> Any:
    """The ir-measures measure of a spelling such as ``nDCG@10``.

    rel: from which grade on a document is relevant, where the measure asks and the name does
         not say
    Raises `HarnessError` for a name that does not exist or cannot be computed here.
    """
    import ir_measures

    try:
        found = ir_measures.parse_measure(name)
        found.validate_params()
    except (NameError, ValueError, SyntaxError, AssertionError) as error:
        close = get_close_matches(name, EXAMPLES, n=1)
        guess = f"Did you mean {close[0]!r}?" if close else f"Examples: {', '.join(EXAMPLES)}."
        raise HarnessError(f"there is no ranking metric {name!r}.", guess) from error
    if rel > 1 and "rel" in found.SUPPORTED_PARAMS and "rel" not in found.params:
        found = found(rel=rel)
    if not _computable(found):
        raise HarnessError(
            f"the ranking metric {name!r} cannot be computed here.",
            f"Those that can: {', '.join(EXAMPLES)} and their like.",
        )
    return found


def _computable(found: Any) -> bool:
    """Whether a provider computes this mean of fractions, with numbers that it bears.

    trec_eval ends the whole process on a cutoff of 0.
    """
    import ir_measures

    gains = found.params.get("gains", {})
    small = [found.params[name] for name in ("cutoff", "rel") if name in found.params]
    numbers = [*small, *gains, *gains.values()]
    return (
        all(type(number) is int and number <= MOST for number in numbers)
        and all(number >= 1 for number in small)
        and isinstance(found.aggregator(), ir_measures.MeanAgg)
        and any(each.supports(found) for each in (ir_measures.pytrec_eval, ir_measures.msmarco))
    )


def check_measures(names: Sequence[str]) -> None:
    """Raise, for all names that are unknown or cannot be computed together."""
    mistakes = []
    for name in filterfalse(is_output, names):
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
    # Asked for together, one nDCG's gains would become those of another (in an order that changes
    # from process to process).
    apart = [[each] for each in measures if each.params.get("gains")]
    rest = [each for each in measures if not each.params.get("gains")]
    for group in filter(None, [*apart, rest] if run else ()):
        for found in ir_measures.iter_calc(group, relevance, run):
            values[found.query_id][str(found.measure)] = float(found.value)
    return values


def ideal(grades: Mapping[str, int], reachable: Sequence[str]) -> list[str]:
    """The best ranking possible: the relevant among ``reachable``, by falling grade."""
    inside = set(reachable)
    found = [doc_id for doc_id, grade in grades.items() if grade > 0 and doc_id in inside]
    return sorted(found, key=lambda doc_id: (-grades[doc_id], doc_id))


def floors(
    grades: Mapping[str, int], reachable: Mapping[str, int], n: int, names: Sequence[str], rel: int
) -> dict[str, float]:
    """What a uniformly random order of ``n`` documents scores in expectation, in closed form.

    grades:    all judged documents of the question (they make the ideal ranking)
    reachable: those of them among the ``n``
    A metric without a closed form here (AP with a cutoff, nDCG with gains) is left out.
    """
    ideal = tuple(sorted((grade for grade in grades.values() if grade > 0), reverse=True))
    here = tuple(sorted(grade for grade in reachable.values() if grade > 0))
    return {
        str(each): _floor(
            each.NAME, each.params.get("cutoff"), each.params.get("rel", 1), ideal, here, n
        )
        for each in (measure(name, rel) for name in names)
        if each.NAME in CLOSED_FORM and each.params.keys() <= CLOSED_FORM[each.NAME]
    }


@cache
def _floor(
    name: str, cutoff: int | None, rel: int, ideal: tuple[int, ...], here: tuple[int, ...], n: int
) -> float:
    relevant, total = sum(g >= rel for g in here), sum(g >= rel for g in ideal)
    k = min(cutoff or n, n)
    if not here or (name != "nDCG" and not relevant):
        return 0.0
    if name == "nDCG":
        discounts = 1 / np.log2(np.arange(2, max(k, len(ideal)) + 2))
        best = float(np.dot(ideal[:cutoff], discounts[: len(ideal[:cutoff])]))
        return sum(here) / n * float(discounts[:k].sum()) / best
    if name == "R":
        return k / n * relevant / total
    if name == "P":
        return relevant / n * k / (cutoff or n)
    if name == "AP":
        harmonic = float((1 / np.arange(1, n + 1)).sum())
        others = (relevant - 1) / (n - 1) * (n - harmonic) if n > 1 else 0.0
        return (harmonic + others) / n * relevant / total
    first = _first_hit(n, relevant, k)
    return float(np.dot(first, 1 / np.arange(1, k + 1)) if name == "RR" else first.sum())


def _first_hit(n: int, relevant: int, k: int) -> Any:
    """Chance that the first relevant document stands at rank 1…k of a random order, (k,)."""
    ranks = np.arange(1, k)
    steps = np.maximum(n - ranks - relevant + 1, 0) / np.maximum(n - ranks, 1)
    return relevant / n * np.concatenate(([1.0], np.cumprod(steps)))
