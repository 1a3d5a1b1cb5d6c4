"""Every question of a run with all that is known of it: gold, and what each pipeline made of it.

What the page and `show` are made from. A case has no text of the data but gold answers; questions
and passages are looked up in the prepared data by those who may show them (`texts`, `passages`).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from harness import registry
from harness.canonical import named_questions, open_corpus, read_gold, read_labels, read_lines
from harness.data import Document, Gold, HarnessError, Row
from harness.report import latency
from harness.report.lost import Lost, lost, tells
from harness.report.sheet import Folders, listed
from harness.run.store import asked_rows
from harness.run.timings import read_timings
from harness.score.results import CEILING, FLOOR, Sample, Scores, read_manifest, read_scores
from harness.score.scoring import data_of
from harness.spelling import parse_spelled

DIGITS = 4
"""Of numbers that no metric is made of: scores of hits, weights, losses."""
SHOWN = 10
"""Hits of a ranking that are kept."""
LISTED = 5
"""Questions that are named where several fit."""


@dataclass(frozen=True)
class Outcome:
    """One pipeline on one question.

    row:    with the first `SHOWN` of its hits; None: it has none
    ranked: how many documents it ranks
    ranks:  place (from 1) of each gold passage among them
    lost:   where the answer was lost; empty: the pipeline does not answer
    ms:     the median of its timings in the latency pass, if it was timed
    """

    row: Row | None
    ranked: int
    ranks: Mapping[str, int]
    metrics: Mapping[str, float]
    state: str
    lost: Lost | None
    ms: float | None


@dataclass(frozen=True)
class Case:
    """One question. relevant: its gold passages, sorted; labels: what its benchmark says of its
    sort; outcomes: by pipeline."""

    id: str
    native: str
    group: str
    gold: Gold
    relevant: tuple[str, ...]
    labels: Mapping[str, str]
    outcomes: Mapping[str, Outcome]


@dataclass(frozen=True)
class Cases:
    """All questions that some pipelines were asked alike: those of one table.

    entries: what the manifests say of each pipeline; data: the prepared task; labelled: whether it
    was prepared when labels were kept
    """

    sample: Sample
    generated: bool
    answer_metrics: tuple[str, ...]
    ranking_metrics: tuple[str, ...]
    entries: Mapping[str, Mapping[str, Any]]
    data: Path
    labelled: bool
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class _Scored:
    """A pipeline of one table: its run, its entry there and its score of each question."""

    folder: Path
    entry: Mapping[str, Any]
    lines: Mapping[str, Mapping[str, Any]]


def cases(folders: Folders, only: str = "", home: Path | str | None = None) -> list[Cases]:
    """The questions of scored runs, by table; a pipeline of two runs is taken from the last.

    only: the question that is wanted, by its id or native id or the beginning of one
    home: where prepared data is kept, see `data_of`
    Raises `HarnessError` for a run that is not scored, data that is not there, and a question that
    no run or that several questions of one table could be.
    """
    heads: dict[Sample, Scores] = {}
    scored: dict[Sample, dict[str, _Scored]] = {}
    for folder in listed(folders):
        if latency.alone(folder):
            continue
        entries = {(Sample.of(e), e["system"]): e for e in read_manifest(folder)["pipelines"]}
        for table in read_scores(folder):
            heads[table.sample] = table
            for system, lines in table.lines.items():
                if system not in (FLOOR, CEILING):
                    by_id = {str(line["id"]): line for line in lines}
                    found = _Scored(folder, entries[table.sample, system], by_id)
                    scored.setdefault(table.sample, {})[system] = found
    tables = [_cases(heads[sample], each, only, home) for sample, each in scored.items()]
    chosen = [table for table in tables if table.cases]
    if only and not chosen:
        raise HarnessError(
            f"no question {only!r} was asked in {', '.join(map(str, listed(folders)))}.",
            "Give an id of scores.jsonl or of the benchmark, or its first characters.",
        )
    return chosen


def _cases(
    head: Scores, scored: Mapping[str, _Scored], only: str, home: Path | str | None
) -> Cases:
    last = list(scored.values())[-1]
    data = data_of(last.entry, "gold.jsonl", home)
    golds = read_gold(data)
    rel = registry.task(parse_spelled(last.entry["task"])).rel
    ids = [query_id for query_id in last.lines if query_id in golds]
    natives = {i: named.native for i, named in named_questions(data).items()}
    if only:
        ids = _fitting(only, ids, natives)
    relevant = {
        i: tuple(sorted(d for d, grade in golds[i].relevance.items() if grade >= rel)) for i in ids
    }
    metrics = (*head.answer_metrics, *head.ranking_metrics)
    labels = read_labels(data)
    found: dict[str, dict[str, Outcome]] = {}
    for system, each in scored.items():
        found[system] = _outcomes(each, ids, golds, relevant, head.answer_metrics, rel)
    return Cases(
        head.sample,
        head.generated,
        _had(metrics, head.answer_metrics, scored),
        _had(metrics, head.ranking_metrics, scored),
        {system: each.entry for system, each in scored.items()},
        data,
        labels is not None,
        tuple(
            Case(i, natives[i], str(last.lines[i]["group"]), golds[i], relevant[i],
                 (labels or {}).get(i, {}), {system: found[system][i] for system in found})
            for i in ids
        ),
    )  # fmt: skip


def _had(
    order: Iterable[str], some: Iterable[str], scored: Mapping[str, _Scored]
) -> tuple[str, ...]:
    """Those metrics that a pipeline has a value of."""
    there = {m for each in scored.values() for line in each.lines.values() for m in line["metrics"]}
    return tuple(metric for metric in order if metric in there and metric in set(some))


def _fitting(wanted: str, ids: list[str], natives: Mapping[str, str]) -> list[str]:
    """The question of that id or native id, or the only one that begins so; none, if none does."""
    exact = [i for i in ids if wanted in (i, natives.get(i))]
    if exact:
        return exact[:1]
    begun = [i for i in ids if i.startswith(wanted) or natives.get(i, "").startswith(wanted)]
    if len(begun) > 1:
        more = ", …" if len(begun) > LISTED else ""
        names = [i if i.startswith(wanted) else natives[i] for i in begun[:LISTED]]
        raise HarnessError(
            f"{len(begun)} questions begin with {wanted!r}.",
            f"Give more of it: {', '.join(names)}{more}.",
        )
    return begun


def _outcomes(
    each: _Scored,
    ids: list[str],
    golds: Mapping[str, Gold],
    relevant: Mapping[str, tuple[str, ...]],
    judged: tuple[str, ...],
    rel: int,
) -> dict[str, Outcome]:
    """What a pipeline made of each question. Rows are read twice: what it says of its reading
    depends on all of them."""
    path = each.folder / str(each.entry["rows"])
    told = tells(str(each.entry["system"]), _rows(path, list(each.lines)))
    timed = _timed(each)
    found = {}
    for query_id, row in asked_rows(path, ids):
        line, gold = each.lines[query_id], golds[query_id]
        right = next((line["metrics"][m] for m in judged if m in line["metrics"]), None)
        where = lost(row, gold, right, rel, told) if each.entry["answers"] else None
        places = {hit.id: place for place, hit in enumerate(row.hits, 1)} if row else {}
        found[query_id] = Outcome(
            replace(row, hits=row.hits[:SHOWN]) if row else None,
            len(places),
            {doc_id: places[doc_id] for doc_id in relevant[query_id] if doc_id in places},
            line["metrics"],
            line["state"],
            where,
            timed.get(query_id),
        )
    return found


def _rows(path: Path, ids: list[str]) -> Iterator[Row]:
    return (row for _, row in asked_rows(path, ids) if row is not None)


def _timed(each: _Scored) -> dict[str, float]:
    """Milliseconds of the questions of a pipeline, where its run measured them."""
    found: dict[str, list[float]] = {}
    names = ("task", "split", "setting", "system", "fingerprint")
    for timing in read_timings(each.folder):
        if timing.measured and all(getattr(timing, n) == each.entry[n] for n in names):
            for query_id, ms in zip(timing.measured.ids, timing.measured.whole, strict=True):
                found.setdefault(query_id, []).append(ms)
    return {query_id: statistics.median(ms) for query_id, ms in found.items()}


# --- texts ----------------------------------------------------------------------------


def texts(table: Cases) -> dict[str, str]:
    """The questions' texts, from the prepared data."""
    return question_texts(table.data, (case.id for case in table.cases))


def question_texts(data: Path, ids: Iterable[str]) -> dict[str, str]:
    """The texts of some questions of a prepared task, by id."""
    wanted = set(ids)
    lines = read_lines(data / "queries.jsonl")
    return {row["id"]: row["text"] for row in lines if row["id"] in wanted}


def passages(table: Cases, ids: Iterable[str]) -> dict[str, Document]:
    """The documents of these ids, from the prepared data; one that is not there is left out."""
    corpus, wanted = open_corpus(table.data), list(ids)
    places = zip(wanted, corpus.positions(wanted).tolist(), strict=True)
    return {doc_id: corpus[place] for doc_id, place in places if place >= 0}


def documents_of(case: Case) -> list[str]:
    """Ids of the documents that matter to a question: gold, then what is ranked high, read, looked
    into, or in a list that was drawn."""
    found = list(case.relevant)
    for outcome in case.outcomes.values():
        if outcome.row is not None:
            found += [hit.id for hit in outcome.row.hits]
            found += outcome.row.read
            if outcome.row.answer is not None:
                found += [each.doc_id for each in outcome.row.answer.evidence or ()]
            found += [window[0] for window in windows(outcome.row)]
            found += [doc_id for each in samples(outcome.row) for doc_id in each.ids]
    return list(dict.fromkeys(found))


def windows(row: Row) -> list[tuple[str, int, int, float]]:
    """What a system looked into, where its extras say so (``windows``): a document, characters of
    its text from and to, and a score; none where they are of another form."""
    given = row.extras.get("windows")
    found = given if isinstance(given, list) and all(map(_is_window, given)) else []
    return [(doc_id, start, end, score) for doc_id, start, end, score in found]


def _is_window(value: Any) -> bool:
    """Whether a JSON value is one of `windows`."""
    if not isinstance(value, list) or len(value) != 4:
        return False
    doc_id, *places, score = value
    whole = all(isinstance(each, int) for each in places)
    return isinstance(doc_id, str) and whole and isinstance(score, int | float)


class Weighed(NamedTuple):
    """A list that a system drew: the ids, how often, the log-probability of the list and of the
    answer behind it, and its weight."""

    ids: list[str]
    drawn: int
    log_p: float
    answer_log_p: float
    weight: float


def samples(row: Row) -> list[Weighed]:
    """Lists that a system drew, where its extras say so (``samples``); none where they are of
    another form."""
    given = row.extras.get("samples")
    found = given if isinstance(given, list) and all(map(_is_sample, given)) else []
    return [Weighed(*each) for each in found]


def _is_sample(value: Any) -> bool:
    """Whether a JSON value is one of `samples`."""
    if not isinstance(value, list) or len(value) != len(Weighed._fields):
        return False
    ids, drawn, *figures = value
    listed = isinstance(ids, list) and all(isinstance(each, str) for each in ids)
    return listed and isinstance(drawn, int) and all(isinstance(n, int | float) for n in figures)


def short(value: float) -> float | int:
    """A number of `DIGITS` digits."""
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded


def shortened(value: Any, text: Callable[[str], str] = str) -> Any:
    """A JSON value with short numbers; ``text`` is done to each of its texts."""
    if isinstance(value, Mapping):
        return {str(key): shortened(each, text) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [shortened(each, text) for each in value]
    if isinstance(value, float):
        return short(value)
    return text(value) if isinstance(value, str) else value
