"""Two runs, or the systems of one, compared question by question.

Compared is each system with its namesake in the base, or all of them with one system of the base
(`harness.report.pairs`). What was not asked alike is not compared: other data, questions, scorers,
depths, lengths or dtypes give a reason and no number (`harness.report.alike`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.data import HarnessError, raise_together
from harness.report.alike import other_depths, other_scorers, unlike
from harness.report.cases import question_texts
from harness.report.gate import LEVEL, Tolerance, Verdict, fitless, tolerance_for, unused, verdict
from harness.report.latency import passes
from harness.report.pairs import (
    Chosen,
    Pair,
    Scored,
    key_of,
    metrics_of,
    only_new,
    pairs_of,
    refusal,
    unknown,
)
from harness.run.store import asked_rows
from harness.score.changed import changed_rows
from harness.score.intervals import Floats
from harness.score.paired import Paired, draws_for, holm, paired

WORST = 10
"""Questions that are shown with both answers."""
ABSENT = Paired(math.nan, math.nan, math.nan, math.nan, 0, 0, 0, 0, 0, math.nan)
"""Of a metric that a pair does not have."""


@dataclass(frozen=True)
class Question:
    """One on which the new system does worse: scores of both, and what each of them ranks first
    if the metric is one of rankings, else its answer."""

    id: str
    base: float
    new: float
    base_answer: str
    new_answer: str
    text: str = ""


@dataclass(frozen=True)
class Comparison:
    """A metric of two systems on one sample of questions.

    gold:    its kind, of what the metric is judged by
    verdict: None where they do not both have it; then no question is counted and values are NaN
    p:       of the sign-flip test, adjusted by Holm for all comparisons of this command
    changed: questions whose rows differ, by kind of change; None: two systems, not one
    p50_ms:  of both, where one latency pass measured both; else None
    """

    task: str
    split: str
    setting: str
    generated: bool
    metric: str
    gold: str
    base: str
    new: str
    base_mean: float
    new_mean: float
    found: Paired
    p: float
    tolerance: Tolerance
    verdict: Verdict | None
    because: str
    changed: dict[str, int] | None
    changed_ids: tuple[str, ...]
    worst: tuple[Question, ...]
    p50_ms: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """What is compared, in a line."""
        systems = self.new if self.new == self.base else f"{self.new} against {self.base}"
        return f"{self.task} {self.split}, {self.setting}: {systems}"

    def as_json(self) -> dict[str, Any]:
        """All of it as a JSON object; what is not known is null."""
        told = asdict(self)
        found = _known(told.pop("found"))
        return {**_known(told), "found": found, "tolerance": self.tolerance.as_json()}


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in values.items()}


def compare(
    base: Path | str,
    new: Path | str,
    *,
    baseline: str = "",
    systems: Sequence[str] = (),
    tasks: Sequence[str] = (),
    metrics: Sequence[str] = (),
    tolerances: Sequence[Tolerance] = (),
    seed: int = 0,
) -> list[Comparison]:
    """Compare scored runs; each system with its namesake, or all with ``baseline`` of the base.

    systems, tasks: only these (a task may be named without its options); all of the base must be
                    in the new run otherwise
    metrics:        those of the scores; left out: the first of each task that both have, its
                    answers' before its ranking's
    Raises `HarnessError` with every reason why something cannot be compared.
    """
    one, other = Scored(base), Scored(new)
    mistakes = unknown(one, other, baseline, systems, tasks)
    raise_together(mistakes + fitless(tolerances, [*one.cases, *other.cases]))
    pairs, mistakes = pairs_of(one, other, baseline, systems, tasks)
    raise_together(mistakes)
    chosen, mistakes = metrics_of(one, other, pairs, list(dict.fromkeys(metrics)))
    mistakes += other_scorers(one, other)
    mistakes += [error for pair in pairs for error in unlike(one, other, pair)]
    mistakes += [error for each in chosen for error in other_depths(one, other, each)]
    raise_together(list({str(each): each for each in mistakes}.values()))
    changed = {key_of(pair[1]): _changed(one, other, pair) for pair in pairs}
    draws = draws_for(len(chosen), LEVEL)
    tested = [
        _tested(one, other, each, changed[key_of(each.pair[1])], seed, draws) for each in chosen
    ]
    raise_together([error for each in tested for error in _same_rows_other_scores(each)])
    adjusted = iter(holm([each.found.p for each in tested if each.infers]))
    return [
        _comparison(one, other, each, next(adjusted) if each.infers else each.found.p, tolerances)
        for each in tested
    ]


def remarks(
    base: Path | str,
    new: Path | str,
    found: Sequence[Comparison],
    *,
    baseline: str = "",
    systems: Sequence[str] = (),
    tasks: Sequence[str] = (),
    tolerances: Sequence[Tolerance] = (),
) -> list[str]:
    """What a comparison does not show, a sentence each: systems that only the new run has, and
    tolerances that decide nothing in it. Arguments as of `compare`, and what it ``found``."""
    cases = [(each.task, each.new, each.metric) for each in found]
    told = [f"decides nothing here: {each}" for each in unused(tolerances, cases)]
    fresh = [] if baseline else only_new(Scored(base), Scored(new), systems, tasks)
    return [*(f"only in {new}, so not compared: {each}" for each in fresh), *told]


def check_tolerances(tolerances: Sequence[Tolerance], run: Path | str) -> None:
    """`HarnessError` if some fit nothing that a run has."""
    raise_together(fitless(tolerances, Scored(run).cases))


# --- comparing ------------------------------------------------------------------------


Changes = Mapping[str, Sequence[str]]
"""The kinds of change of each question whose row changed."""


@dataclass(frozen=True)
class _Tested:
    """One metric of a pair, which judges answers or, ``ranked``, rankings: both values of each
    question, and the rows that changed (None: two systems)."""

    pair: Pair
    metric: str
    ranked: bool
    gold: str
    ids: list[str]
    before: Floats
    after: Floats
    found: Paired
    changed: Changes | None

    @property
    def same(self) -> bool:
        """Every row is the same, so that there is nothing to infer."""
        return self.changed is not None and not self.changed

    @property
    def infers(self) -> bool:
        """Whether it is one of the comparisons that are tested together."""
        return self.found is not ABSENT and not self.same


def _changed(one: Scored, other: Scored, pair: Pair) -> Changes | None:
    """The rows that changed, if both are one system."""
    if pair[0]["system"] != pair[1]["system"]:
        return None
    rows = one.rows(pair[0]), other.rows(pair[1])
    ids = other.columns[key_of(pair[1])].ids
    return {each.id: each.kinds for each in changed_rows(*rows, ids)}


def _tested(
    one: Scored, other: Scored, chosen: Chosen, changed: Changes | None, seed: int, draws: int
) -> _Tested:
    """The differences of two systems."""
    pair, metric = chosen.pair, chosen.metric
    mine, yours = one.columns[key_of(pair[0])], other.columns[key_of(pair[1])]
    ranked = metric in other.heads[key_of(pair[1])[0]]["ranking_metrics"]
    if not chosen.there:
        none = np.full(len(yours.ids), np.nan)
        return _Tested(pair, metric, ranked, "", yours.ids, none, none, ABSENT, changed)
    places = {query_id: place for place, query_id in enumerate(mine.ids)}
    gold = "+".join(sorted(yours.golds)) if ranked else "official"
    before = np.array(mine.values[metric])[[places[query_id] for query_id in yours.ids]]
    after = np.array(yours.values[metric])
    there = ~(np.isnan(before) | np.isnan(after)).all()
    found = paired(before, after, yours.groups, seed, draws=draws) if there else ABSENT
    return _Tested(pair, metric, ranked, gold, yours.ids, before, after, found, changed)


def _same_rows_other_scores(each: _Tested) -> list[HarnessError]:
    """The scorers differ, whatever they say of themselves, if a row has two scores."""
    if each.changed is None:
        return []
    apart = np.flatnonzero(~np.isclose(each.before, each.after, rtol=0, atol=1e-9, equal_nan=True))
    alike = [each.ids[place] for place in apart if each.ids[place] not in each.changed]
    if not alike:
        return []
    why = f"the scorers differ: {each.metric} of {len(alike)} rows that are the same is another one"
    return [refusal(each.pair, f"{why} ({alike[0]})")]


def _comparison(
    one: Scored, other: Scored, each: _Tested, p: float, tolerances: Sequence[Tolerance]
) -> Comparison:
    before, after, (mine, yours) = each.before, each.after, each.pair
    tolerance = tolerance_for(tolerances, yours["task"], yours["system"], each.metric)
    said: Verdict | None = None
    because = f"{'not both have' if each.changed is None else 'it has no'} {each.metric}"
    if each.found is not ABSENT:
        said, because = verdict(each.found, p, tolerance.tolerance, each.same)
    worse = [(float(after[n] - before[n]), each.ids[n], n) for n in np.flatnonzero(after < before)]
    worst = [(name, float(before[n]), float(after[n])) for _, name, n in sorted(worse)[:WORST]]
    kinds = Counter(kind for kinds in (each.changed or {}).values() for kind in kinds)
    return Comparison(
        yours["task"],
        yours["split"],
        yours["setting"],
        yours["generated"],
        each.metric,
        each.gold,
        mine["system"],
        yours["system"],
        *_means(before, after),
        each.found,
        p,
        tolerance,
        said,
        because,
        None if each.changed is None else dict(kinds),
        tuple(each.changed or ()),
        tuple(_questions(one, other, each, worst)),
        _timed(one.folder, each.pair) if one.is_run(other) else None,
    )


def _means(before: Floats, after: Floats) -> tuple[float, float]:
    """Of the questions that have both; NaN if none has."""
    there = ~(np.isnan(before) | np.isnan(after))
    if not there.any():
        return math.nan, math.nan
    return float(before[there].mean()), float(after[there].mean())


def _timed(folder: Path, pair: Pair) -> tuple[float, float] | None:
    """p50 of both systems from one pass; two passes ran under two loads."""
    names = ("task", "split", "setting")
    for cells in passes(folder):
        found = {
            cell.system: cell.p50_ms
            for cell in cells
            if all(getattr(cell, name) == pair[0][name] for name in names)
        }
        mine, yours = (found.get(entry["system"]) for entry in pair)
        if mine is not None and yours is not None:
            return mine, yours
    return None


def _questions(
    one: Scored, other: Scored, tested: _Tested, worst: Sequence[tuple[str, float, float]]
) -> Iterator[Question]:
    """Questions with what both say, and their text where the prepared data is at hand."""
    pair, ids = tested.pair, [query_id for query_id, *_ in worst]
    said = [
        {i: _said(row, tested.ranked) for i, row in asked_rows(run.rows(entry), ids)}
        for run, entry in zip((one, other), pair, strict=True)
    ]
    texts: dict[str, str] = {}
    data = Path(pair[1]["data"])
    if ids and data.name == pair[1]["fingerprint"] and (data / "queries.jsonl").exists():
        texts = question_texts(data, ids)
    for query_id, before, after in worst:
        answers = [each.get(query_id, "") for each in said]
        text = texts.get(query_id, "")
        yield Question(query_id, before, after, answers[0], answers[1], text)


def _said(row: Any, ranked: bool) -> str:
    """What of a row a metric judges, in words: the documents ranked first, or the answer."""
    if row is None:
        return "(no row)"
    if row.error:
        return f"(error: {row.error})"
    if ranked:
        return " ".join(hit.id for hit in row.hits[:5]) or "(no ranking)"
    return "(no answer)" if row.answer is None else str(row.answer.text)
