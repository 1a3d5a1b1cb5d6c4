"""Whether rows are what a run could have written, each by itself and all together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import registry
from harness.corpus import Corpus
from harness.data import Answer, HarnessError, Query, Reply, Row
from harness.run.stages import DEPTH, Known, Misbehaviour, check_ranking, check_reply
from harness.run.store import parse_row, row_line, wrong_types
from harness.spelling import Pipeline
from harness.verify.findings import Findings, counted, told
from harness.verify.strict import Unreadable, lines, loads

ID = re.compile(r"[0-9a-f]{16}(-\d{6,})?")
"""Of a document or a question."""


@dataclass
class Asked:
    """What the rows of one pipeline are held against.

    queries: the asked questions by id, with their pools in that setting
    k:       the most documents that a row can rank; None: nobody can say
    """

    queries: Mapping[str, Query]
    corpus: Corpus
    entry: Mapping[str, Any]
    k: int | None
    known: Known = field(init=False)

    def __post_init__(self) -> None:
        self.known = Known(self.corpus)


def most_hits(pipeline: Pipeline, entry: Mapping[str, Any]) -> int | None:
    """The most documents that a row of a pipeline can rank, beyond its pool.

    The answering stage's depth is what it reads; every stage before it passes on no more than its
    depth. In the corpus setting the first ranks `DEPTH` where it does not say, unless it comes from
    outside, solves all at once, or is not known here. This is what a spelling allows; how deep the
    rankings of a run really go, which two systems must share to be compared, its rows say
    (`harness.report.compare`): of results from outside, and in small pools, no spelling tells it.
    """
    stages = pipeline.stages
    ranking = stages[:-1] if entry["answers"] else stages
    depths = [stage.depth for stage in ranking if stage.depth is not None]
    if ranking and entry["setting"] == "corpus" and ranking[0].depth is None:
        try:
            first = registry.find("systems", ranking[0].system.name)
        except HarnessError:
            first = object
        if hasattr(first, "retrieve"):
            depths.append(DEPTH)
    return min(depths, default=None)


@dataclass
class Seen:
    """What a file's rows have in common; the rows themselves may be too many to keep."""

    ids: set[str] = field(default_factory=set)
    hits: bool = False
    answers: bool = False
    errors: int = 0

    def add(self, row: Row) -> None:
        """Note one."""
        self.ids.add(row.id)
        self.hits = self.hits or bool(row.hits)
        self.answers = self.answers or row.answer is not None
        self.errors += bool(row.error)


def check(path: Path, name: str, asked: Asked, found: Findings) -> None:
    """Note what is wrong with the rows of a file; one is in memory at a time."""
    seen = Seen()
    try:
        for number, line in lines(path):
            where = f"{name}:{number}"
            row = _row(line, where, found)
            if row is None:
                continue
            if row.id in seen.ids:
                found.add("coverage", where, f"the question {row.id} has a row already.")
            elif row.id not in asked.queries:
                found.add("coverage", where, f"the question {row.id} was not asked.")
            else:
                seen.add(row)
                _check(row, where, asked, found)
    except Unreadable as error:
        found.add("json", name, f"{error}.")
    lacking = [query_id for query_id in asked.queries if query_id not in seen.ids]
    if lacking:
        questions = counted(len(lacking), "question")
        found.add("coverage", name, f"no row for {questions}, such as {lacking[0]}.")
    _columns(seen, name, asked.entry, found)


def _row(line: bytes, where: str, found: Findings) -> Row | None:
    """The row of a line, if it is exactly what the store writes of it."""
    try:
        loads(line)
    except Unreadable as error:
        found.add("json", where, f"{error}.")
        return None
    try:
        row = parse_row(line)
        wrong = wrong_types(row) or _untyped(row) or _respelled(row, line)
    except ValueError as error:
        wrong = str(error)
    if wrong:
        found.add("row", where, f"{wrong}.")
        return None
    return row


def _untyped(row: Row) -> str:
    """Which field has a type that no run writes."""
    if not {type(hit.score) for hit in row.hits} <= {float, int}:
        return "a score in it is no number"
    told = (row.answer, row.hits, row.raw, row.read, row.counts, row.stop, row.extras)
    try:
        check_reply(Reply(*told))
    except Misbehaviour:
        return "not a row: a field of it is missing or of a wrong type"
    return ""


def _respelled(row: Row, line: bytes) -> str:
    try:
        same = row_line(row) == line
    except (TypeError, ValueError):
        same = False
    return "" if same else "it has other fields, or other spellings, than a run writes"


def _check(row: Row, where: str, asked: Asked, found: Findings) -> None:
    """The door for rankings, and every pointer."""
    query = asked.queries[row.id]
    odd = [hit.id for hit in row.hits if not ID.fullmatch(hit.id)]
    try:
        if odd:
            raise Misbehaviour(f"ranks {odd[0][:40]!r}, which is not in any corpus")
        check_ranking(row.hits, query, asked.known, asked.k)
    except Misbehaviour as error:
        rule = "pool" if "not in" in str(error) else "ranking"
        found.add(rule, where, f"a run refuses such a ranking: {error}.")
    for pointed in (row.read, [each.doc_id for each in (row.answer and row.answer.evidence) or ()]):
        strange = _unknown(pointed, asked.known)
        if strange:
            found.add("evidence", where, f"there is no document {strange[:40]!r}.")
            return
    if row.answer is not None:
        _places(row.answer, where, asked.corpus, found)


def _unknown(ids: Sequence[str], known: Known) -> str:
    odd = [doc_id for doc_id in ids if not ID.fullmatch(doc_id)]
    return odd[0] if odd else min(known.outside(ids), default="")


def _places(answer: Answer, where: str, corpus: Corpus, found: Findings) -> None:
    for each in answer.evidence or ():
        document = corpus[each.doc_id]
        if each.sentence is not None and not 0 <= each.sentence < len(document.sentences):
            wrong = f"{each.doc_id} has no sentence {each.sentence}."
        elif each.span is not None and not 0 <= each.span[0] <= each.span[1] <= len(document.text):
            wrong = f"{each.doc_id} has no characters {each.span[0]} to {each.span[1]}."
        else:
            continue
        found.add("evidence", where, wrong)


def _columns(seen: Seen, name: str, entry: Mapping[str, Any], found: Findings) -> None:
    """What the manifest says of rows in general: nothing that they give may be left unscored."""
    if not entry["ranks"] and seen.hits:
        found.add("manifest", name, "it has rankings, and the manifest says that it ranks nothing.")
    if not entry["answers"] and seen.answers:
        found.add("manifest", name, "it has answers, and the manifest says that it gives none.")
    if entry["errors"] != seen.errors:
        errors = counted(seen.errors, "errored row")
        found.add("manifest", name, f"it has {errors}, not {told(entry['errors'])}.")
    if entry["questions"] != len(seen.ids):
        have = counted(len(seen.ids), "row")
        found.add("manifest", name, f"it has {have}, not {entry['questions']}.")
