"""One HTML file for one or more runs: tables, drawings, and every question to look at.

The file stands alone: it asks for nothing, and its content security policy lets it ask for nothing.
Tables and drawings are there without JavaScript; the questions are JSON in it, which its script
shows as text. Texts of the data (questions, passages, gold answers) and what systems wrote of them
are in it for generated tasks; for others only with ``texts``: their licences may not let a page be
passed on.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data import Document, HarnessError, Row
from harness.report import latency
from harness.report.breakdown import UNLABELLED, breakdowns
from harness.report.cases import (
    Case,
    Cases,
    Outcome,
    cases,
    documents_of,
    passages,
    samples,
    short,
    shortened,
)
from harness.report.cases import texts as texts_of
from harness.report.charts import Bar, Intervals, Tradeoff, bars, intervals, tradeoff
from harness.report.claims import KEY as CLAIMS_KEY
from harness.report.claims import claim_sheets
from harness.report.lost import CLASSES, MEANING
from harness.report.sheet import Folders, Sheet, listed
from harness.report.tables import BOUNDS, KEY, Table, tables
from harness.report.tables import sheet as score_sheet

TEMPLATE = "page.html.jinja"
LONGEST = 4_000
"""Characters of a text that are shown; what is left out is counted."""


@dataclass(frozen=True)
class Section:
    """All of one table of scores but the questions."""

    title: str
    scores: Sheet
    claims: Sequence[Sheet]
    intervals: tuple[Intervals, ...]
    tradeoff: Tradeoff | None
    lost: Sheet | None
    bars: Mapping[str, Sequence[Bar]]
    breakdowns: Sequence[Sheet]
    unlabelled: str
    latency: Sequence[Sheet]
    costs: Sheet | None


def page(
    folders: Folders, out: Path | str, texts: bool = False, data: Path | str | None = None
) -> Path:
    """Write the page of scored runs to ``out``; returns it.

    texts: put in what the data and the systems say, for tasks too that are not generated
    data:  where prepared data is kept, if it is not where it was when the run was made
    Raises `HarnessError` for a run that is not scored or whose prepared data is not there.
    """
    out, given = Path(out), listed(folders)
    if out.is_dir():
        raise HarnessError(f"{out} is a folder.", f"Name a file: -o {out / 'run.html'}.")
    found = {table.sample: table for table in cases(given, home=data)}
    scored = [folder for folder in given if not latency.alone(folder)]
    shown = tables(scored)
    if not shown:
        raise HarnessError("there is nothing to show.", "Give the folder of a scored run.")
    judged: defaultdict[str, list[Sheet]] = defaultdict(list)
    sheets, claims_notes = claim_sheets(scored, "markdown")
    for sample, sheet in sheets:
        judged[sample].append(sheet)
    html = _rendered(
        sections=[
            _section(each, found[each.sample], judged[each.sample.digest], given, texts)
            for each in shown
        ],
        key=KEY,
        claims_key=CLAIMS_KEY,
        claims_notes=[_homeless(note, scored) for note in claims_notes],
        latency_key=latency.KEY,
        meaning=MEANING,
        payload=as_json([_questions(found[t.sample], t, texts) for t in shown]),
        withheld=[t.title for t in shown if not (texts or t.generated)],
        runs=[folder.resolve().name for folder in given],
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    try:
        part.write_text(html, encoding="utf-8", errors="replace")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return out


def _homeless(note: str, folders: Sequence[Path]) -> str:
    """A note that names these folders, without those above them."""
    for folder in sorted(folders, key=lambda each: -len(str(each))):
        if folder.name not in ("", ".."):
            note = note.replace(str(folder), folder.name)
    return note


def _rendered(**facts: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    env = Environment(
        loader=PackageLoader("harness", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["fingerprint"] = fingerprint
    return env.get_template(TEMPLATE).render(**{**facts, "payload": Markup(facts["payload"])})


def fingerprint(script: str) -> str:
    """What a content security policy calls the one script that may run."""
    return f"sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def as_json(value: object) -> str:
    """JSON that can stand inside a script element: ASCII, without < > and &."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})


# --- tables and drawings --------------------------------------------------------------


def _section(
    table: Table, asked: Cases, claims: Sequence[Sheet], folders: Sequence[Path], texts: bool
) -> Section:
    primary = [*asked.answer_metrics[:1], *asked.ranking_metrics[:1]]
    timed = [
        (cells, each)
        for cells, *each in zip(
            latency.passes(folders), latency.sheets(folders), latency.by_stage(folders), strict=True
        )
        if _place(cells[0]) == _place(asked.sample)
    ]
    ms = {cell.system: cell.p50_ms or 0.0 for cells, _ in timed for cell in cells}
    quality = {
        line.system: line.cells[primary[0]].value
        for line in table.lines
        if primary and line.system not in BOUNDS and primary[0] in line.cells
    }
    lost = {s: [c.outcomes[s].lost for c in asked.cases] for s, e in asked.entries.items()
            if e["answers"]}  # fmt: skip
    return Section(
        table.title,
        score_sheet(table, "markdown"),
        claims,
        tuple(intervals(table, metric) for metric in primary),
        tradeoff(primary[0], quality, ms) if len(timed) == 1 else None,
        _lost_sheet(lost) if lost else None,
        {system: bars(each) for system, each in lost.items()},
        breakdowns(asked),
        "" if asked.labelled else UNLABELLED,
        [sheet for _, each in timed for sheet in each],
        _costs(asked, texts or asked.generated),
    )


def _place(what: Any) -> tuple[str, str, str]:
    return what.task, what.split, what.setting


def _lost_sheet(lost: Mapping[str, Sequence[str | None]]) -> Sheet:
    """How many questions of each pipeline fall into each class; the last column is their sum."""
    names = [name for name in CLASSES if any(name in each for each in lost.values())]
    rows = []
    for system, each in lost.items():
        counts = [each.count(name) for name in names]
        rows.append((system, *map(str, counts), str(sum(counts))))
    return Sheet("Where the answer was lost", ("system", *names, "questions"), tuple(rows))


def _costs(asked: Cases, open_: bool) -> Sheet | None:
    """The mean of what systems count, over the questions that they count it for; the last column
    is the most questions that one of them has."""
    found: dict[str, dict[str, list[float]]] = {}
    for system in asked.entries:
        for case in asked.cases:
            row = case.outcomes[system].row
            for name, value in (_counts(row, open_) if row else {}).items():
                found.setdefault(system, {}).setdefault(name, []).append(value)
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    if not names:
        return None
    rows = [
        (
            system,
            *(f"{sum(e[n]) / len(e[n]):.1f}" if n in e else "–" for n in names),
            str(max(map(len, e.values()))),
        )
        for system, e in found.items()
    ]
    heads = ("system", *(name.replace("_", " ") for name in names), "questions")
    return Sheet("What was read and written, mean of a question", heads, tuple(rows))


# --- questions ------------------------------------------------------------------------


def _questions(asked: Cases, table: Table, texts: bool) -> dict[str, Any]:
    """The questions of a table as the page's script reads them.

    docs is a list of document ids; every other place names one by its number there.
    """
    open_ = texts or asked.generated
    docs: dict[str, int] = {}
    for case in asked.cases:
        for doc_id in documents_of(case):
            docs.setdefault(doc_id, len(docs))
    said = texts_of(asked) if open_ else {}
    found: dict[str, Any] = {
        "title": table.title,
        "open": open_,
        "answers": bool(asked.answer_metrics),
        "primary": [*asked.answer_metrics[:1], *asked.ranking_metrics[:1]],
        "docs": list(docs),
        "questions": [_question(case, said, docs, open_) for case in asked.cases],
        "systems": [_system(asked, system, docs, open_) for system in asked.entries],
    }
    if open_:
        texts_by_id = passages(asked, docs)
        found["texts"] = [_passage(texts_by_id.get(doc_id)) for doc_id in docs]
    return found


def _question(
    case: Case, said: Mapping[str, str], docs: Mapping[str, int], open_: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {"id": case.id, "gold": [docs[each] for each in case.relevant]}
    if case.native != case.id:
        found["native"] = _cut(case.native)
    if case.labels:
        found["labels"] = case.labels
    if open_:
        found["text"] = _cut(said.get(case.id, ""))
        found["answers"] = list(map(_cut, case.gold.answers))
    return found


def _passage(document: Document | None) -> list[str]:
    """Title and text; nothing, if the corpus does not have it."""
    return [_cut(document.title), _cut(document.text)] if document else []


def _cut(text: str) -> str:
    """The beginning of a long text, and how much of it is left out."""
    left = len(text) - LONGEST
    return text if left <= 0 else f"{text[:LONGEST]} … ({left:,} more characters)"


def _system(asked: Cases, system: str, docs: Mapping[str, int], open_: bool) -> dict[str, Any]:
    """One pipeline: a list a fact, each with a place a question. Metrics are written as the list
    of their values and, for each question, the place of its value there (null: it has none)."""
    outcomes = [case.outcomes[system] for case in asked.cases]
    metrics = list(dict.fromkeys(m for each in outcomes for m in each.metrics))
    found: dict[str, Any] = {
        "name": system,
        "metrics": {m: _coded([each.metrics.get(m) for each in outcomes]) for m in metrics},
        "state": [each.state for each in outcomes],
        "lost": [each.lost or "" for each in outcomes],
        "ranked": [each.ranked for each in outcomes],
        "ranks": [{docs[d]: rank for d, rank in each.ranks.items()} for each in outcomes],
        "hits": [[docs[hit.id] for hit in _row(each).hits] for each in outcomes],
        "scores": [[short(hit.score) for hit in _row(each).hits] for each in outcomes],
        "read": [[docs[doc_id] for doc_id in _row(each).read] for each in outcomes],
        "ms": [None if each.ms is None else round(each.ms, 2) for each in outcomes],
        "error": [_cut(_row(each).error) if open_ else "" for each in outcomes],
        "counts": _columns([_counts(_row(each), open_) for each in outcomes]),
    }
    if open_:
        found["said"] = [_said(each, docs) for each in outcomes]
    else:
        found["said"] = [_extras(_row(each), docs, open_) for each in outcomes]
    return found


def _row(outcome: Outcome) -> Row:
    return outcome.row or Row("")


def _coded(values: Sequence[float | None]) -> list[Any]:
    """The different values, and the place of each among them."""
    different = list(dict.fromkeys(value for value in values if value is not None))
    order = {value: place for place, value in enumerate(different)}
    return [different, [None if value is None else order[value] for value in values]]


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _said(outcome: Outcome, docs: Mapping[str, int]) -> dict[str, Any]:
    """What a system wrote; what is empty, or the same as another, is left out."""
    row = _row(outcome)
    found: dict[str, Any] = {}
    if row.answer is not None:
        found["answer"] = _cut(row.answer.text)
        if row.answer.evidence:
            found["evidence"] = [[docs[e.doc_id], e.sentence, e.span] for e in row.answer.evidence]
        if row.answer.triples:
            found["triples"] = [list(map(_cut, each)) for each in row.answer.triples]
    if row.raw and (row.answer is None or row.raw != row.answer.text):
        found["raw"] = _cut(row.raw)
    return found | _extras(row, docs, open_=True)


def _extras(row: Row, docs: Mapping[str, int], open_: bool) -> dict[str, Any]:
    """What else a system says, and apart from it the lists that it drew."""
    extras, drawn = dict(row.extras), samples(row)
    found: dict[str, Any] = {}
    if drawn:
        del extras["samples"]
        found["samples"] = [[[docs[d] for d in ids], *shortened(rest)] for ids, *rest in drawn]
    if extras:
        found["extras"] = shortened(extras, _cut) if open_ else _figures(extras, docs)
    return found


def _figures(extras: Mapping[str, Any], docs: Mapping[str, int]) -> dict[str, Any]:
    """Of what else a system says, the numbers alone, under names of one word: texts may be the
    data's."""
    plain = shortened(extras, _cut)
    told = {name: value for name, value in plain.items() if _wordless(value, docs)}
    return {name: value for name, value in told.items() if name.isidentifier()}


def _counts(row: Row, open_: bool) -> Mapping[str, float]:
    """What a system counts; where texts are left out, under names of one word."""
    return {name: n for name, n in row.counts.items() if open_ or name.isidentifier()}


def _wordless(value: Any, docs: Mapping[str, int]) -> bool:
    if isinstance(value, Mapping):
        return all(key in docs and _wordless(each, docs) for key, each in value.items())
    if isinstance(value, list):
        return all(_wordless(each, docs) for each in value)
    return not isinstance(value, str) or value in docs
