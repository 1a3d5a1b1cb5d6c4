"""One question of a run in a terminal: what the page shows, without a page.

Texts come from the prepared data on this machine. Whatever could steer a terminal or turn the
order of its letters is shown by its code point.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.data import Document, Row
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
    texts,
    windows,
)
from harness.report.sheet import titled

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that are shown by their code point; line breaks become spaces."""


def show(run: Path | str, question: str, data: Path | str | None = None) -> str:
    """Everything known of a question of a run: its passages, and what each system made of it.

    question: its id or native id, or the beginning of one
    data:     where prepared data is kept, if it is not where it was when the run was made
    Raises `HarnessError` as `harness.report.cases.cases` does.
    """
    found = cases(run, question, data)
    return "\n\n".join("\n".join(map(visible, _told(each, each.cases[0]))) for each in found)


def visible(text: str) -> str:
    """A line that is safe to print, whatever stands in it."""
    spaced = text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c) in HIDDEN else c for c in spaced)


def _told(table: Cases, case: Case) -> Iterator[str]:
    yield titled(table.sample, table.generated)
    documents = passages(table, documents_of(case))
    yield f"question {case.id} ({case.native}): {texts(table).get(case.id, '')}"
    if case.labels:
        yield ", ".join(f"{name}: {label}" for name, label in case.labels.items())
    answers = " · ".join(case.gold.answers) or "(none known)"
    yield f"gold answer: {answers}" + ("" if case.gold.answerable else " (not answerable)")
    for what, ids in (("gold", case.relevant), ("read", _read(case))):
        for doc_id in ids:
            yield f"{what} passage {_named(doc_id, documents)}"
            if doc_id in documents:
                yield f"    {documents[doc_id].text}"
    for system, outcome in case.outcomes.items():
        yield ""
        yield from _system(system, outcome, case, documents)


def _read(case: Case) -> list[str]:
    """The passages that some system read, without gold."""
    read = (doc_id for each in case.outcomes.values() if each.row for doc_id in each.row.read)
    return [doc_id for doc_id in dict.fromkeys(read) if doc_id not in case.relevant]


def _named(doc_id: str, documents: Mapping[str, Document]) -> str:
    title = documents[doc_id].title if doc_id in documents else ""
    return f"{doc_id} {title}".rstrip()


def _system(
    system: str, outcome: Outcome, case: Case, documents: Mapping[str, Document]
) -> Iterator[str]:
    row = outcome.row or Row("")
    ended = [outcome.lost or "", outcome.state, f"{outcome.ms:.2f} ms" if outcome.ms else ""]
    yield f"{system}: {', '.join(filter(None, ended)) or 'ranks'}"
    if row.error:
        yield f"  error: {row.error}"
    if row.answer is not None:
        yield f"  answer: {row.answer.text!r}"
        for each in row.answer.evidence or ():
            where = f" sentence {each.sentence + 1}" if each.sentence is not None else ""
            where += " {}–{}".format(*each.span) if each.span else ""
            yield f"  evidence: {_named(each.doc_id, documents)}{where}"
        for triple in row.answer.triples or ():
            yield f"  triple: {' · '.join(triple)}"
    if row.raw and (row.answer is None or row.raw != row.answer.text):
        yield f"  written: {row.raw!r}"
    yield "  scores: " + (", ".join(f"{m} {v:.3f}" for m, v in outcome.metrics.items()) or "none")
    yield from _ranking(outcome, row, case.relevant, documents)
    looked = windows(row)
    for doc_id, start, end, score in looked:
        text = documents[doc_id].text[start:end] if doc_id in documents else ""
        where = f"{_named(doc_id, documents)} {start}–{end}"
        yield f"  window: {where} {short(score)}" + (f": {text}" if text else "")
    drawn = samples(row)
    for weighed in drawn:
        log_p = f"log p {short(weighed.log_p)}, of the answer {short(weighed.answer_log_p)}"
        yield f"  drawn {weighed.drawn}×: {log_p}, weight {short(weighed.weight)}"
        for doc_id in weighed.ids:
            yield f"       {_named(doc_id, documents)}{_marks(doc_id, case.relevant, row)}"
    for name, value in {**row.counts, **row.extras}.items():
        if (name == "windows" and looked) or (name == "samples" and drawn):
            continue
        yield f"  {name}: {json.dumps(shortened(value), ensure_ascii=False)}"


def _marks(doc_id: str, relevant: Sequence[str], row: Row) -> str:
    marks = ["gold"] * (doc_id in relevant) + ["read"] * (doc_id in row.read)
    return f"  ({', '.join(marks)})" if marks else ""


def _ranking(
    outcome: Outcome, row: Row, relevant: Sequence[str], documents: Mapping[str, Document]
) -> Iterator[str]:
    """The first hits, marked gold and read; then gold below them, and what else was read."""
    hits = [hit.id for hit in row.hits]
    places = {doc_id: place for place, doc_id in enumerate(hits, 1)} | dict(outcome.ranks)
    for doc_id in sorted(places, key=places.__getitem__):
        marks = _marks(doc_id, relevant, row)
        yield f"  {places[doc_id]:>4} {_named(doc_id, documents)}{marks}"
    if outcome.ranked > len(hits):
        yield f"       … of {outcome.ranked} ranked"
    for doc_id in row.read:
        if doc_id not in places:
            yield f"  read {_named(doc_id, documents)}"
    missing = [doc_id for doc_id in relevant if doc_id not in places]
    if missing and outcome.ranked:
        yield f"  not ranked: {', '.join(missing)} (gold)"
