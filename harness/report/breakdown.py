"""Scores by kind of question: type, hops, gold passages, rank of the first gold, and the like.

A kind is known from the prepared data alone: from what the benchmark says of the question (its
labels), from its text and from its gold. Where there is nothing to tell there is no table. Each
mean stands with its interval and its n, and under the table the kind of gold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from harness.report.cases import Case, Cases, Outcome, texts
from harness.report.sheet import Sheet
from harness.score.intervals import cluster_intervals
from harness.score.normalise import squad_normal

WORDS = re.compile(r"\b(who|whom|whose|what|when|where|which|why|how (?:many|much)|how)\b")
RANKS = ((1, "1"), (2, "2"), (5, "3–5"), (10, "6–10"), (math.inf, "11 on"))
UNLABELLED = (
    "Types, levels and hops of questions are not known: this data was prepared before they were "
    "kept. `python -m harness prepare` again, and the next page has them."
)
UNKNOWN = "not known"
Kind = Callable[[Case, Outcome], str]


def breakdowns(table: Cases) -> list[Sheet]:
    """A table for each way to sort questions that tells at least two kinds apart."""
    asked = texts(table)
    ways: dict[str, Kind] = {
        **{name: partial(_label, name) for name in _names(table)},
        "question word": lambda case, _: question_word(asked.get(case.id, "")),
        "form of the gold answer": lambda case, _: form(case),
        "number of gold passages": lambda case, _: str(len(case.relevant)),
        "rank of the first gold passage": lambda case, outcome: first_rank(case, outcome),
    }
    found = (_sheet(table, name, kind) for name, kind in ways.items())
    return [sheet for sheet in found if len(sheet.heads) > 3]


def _names(table: Cases) -> list[str]:
    """The labels that some question has."""
    return list(dict.fromkeys(name for case in table.cases for name in case.labels))


def _label(name: str, case: Case, outcome: Outcome) -> str:  # noqa: ARG001
    return case.labels.get(name, UNKNOWN)


def _metrics(table: Cases) -> list[str]:
    """Answers' first metric and F1, and the first of the ranking."""
    chosen = [*table.answer_metrics[:1], "F1", *table.ranking_metrics[:1]]
    return list(dict.fromkeys(m for m in chosen if m != "F1" or m in table.answer_metrics))


def _sheet(table: Cases, name: str, kind: Kind) -> Sheet:
    metrics = _metrics(table)
    kinds: dict[str, dict[str, list[Case]]] = {}
    for system in table.entries:
        for case in table.cases:
            value = kind(case, case.outcomes[system])
            if value:
                kinds.setdefault(system, {}).setdefault(value, []).append(case)
    order = sorted({value for each in kinds.values() for value in each}, key=_order)
    rows = []
    for system, parts in kinds.items():
        cells = {value: _cells(parts[value], system, metrics) for value in parts}
        for metric in metrics:
            row = [cells[value].get(metric, "–") if value in cells else "–" for value in order]
            if set(row) != {"–"}:
                rows.append((system, metric, *row))
    return Sheet(f"By {name}", ("system", "metric", *order), tuple(rows), (_key(table),))


def _key(table: Cases) -> str:
    kinds = "+".join(sorted({case.gold.kind for case in table.cases}))
    return f"Mean (95 % interval) n=questions. Gold: official for answers, {kinds} for rankings."


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by size, then words."""
    number = re.match(r"\d+", value)
    return number is None, float(number[0]) if number else 0, value


def _cells(some: list[Case], system: str, metrics: list[str]) -> Mapping[str, str]:
    """Mean, interval and n of each metric over some questions."""
    scored = [case.outcomes[system].metrics for case in some]
    values = np.array([[each.get(m, math.nan) for m in metrics] for each in scored])
    mean, low, high, _ = cluster_intervals(values, [case.group for case in some])
    found = {}
    for place, metric in enumerate(metrics):
        n = int((~np.isnan(values[:, place])).sum())
        if n:
            known = not math.isnan(low[place])
            between = f" ({low[place]:.3f}–{high[place]:.3f})" if known else ""
            found[metric] = f"{mean[place]:.3f}{between} n={n}"
    return found


def question_word(text: str) -> str:
    """The first question word of a text; other: it has none."""
    found = WORDS.search(text.lower())
    return found[1] if found else "other"


def form(case: Case) -> str:
    """What the main accepted answer looks like; nothing where there is none."""
    if not case.gold.answers:
        return ""
    main = squad_normal(case.gold.answers[0])
    if main in ("yes", "no"):
        return "yes/no"
    if re.search(r"\d", main):
        return "with a number"
    return "one or two words" if len(main.split()) < 3 else "three words or more"


def first_rank(case: Case, outcome: Outcome) -> str:
    """Where the first gold passage stands in a ranking; nothing where none is known."""
    if not case.relevant or not outcome.ranked:
        return ""
    first = min(outcome.ranks.values(), default=0)
    return next(name for most, name in RANKS if first <= most) if first else "not among the hits"
