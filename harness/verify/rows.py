"""Whether rows are what a run could have written, each by itself and all together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import registry
from harness.corpus import Corpus
from harness.data import Answer, Query, Reply, Row
from harness.run.external import NOT_IN_FILE, from_outside
from harness.run.stages import DEPTH, READ, Known, Misbehaviour, check_ranking, check_reply
from harness.run.store import parse_row, row_line, wrong_types
from harness.spelling import Pipeline
from harness.verify.findings import Findings, counted, told
from harness.verify.strict import Unreadable, lines, loads

ID = re.compile(r"[0-9a-f]{16}(-\d{6,})?")
"""Of a document or a question."""
Systems = Sequence[type | None]
"""The class of each stage of a pipeline; None where it is not known here."""
WHOLE = ("prompt_tokens", "new_tokens", "passages_dropped", "not_in_file")
"""Counts that mean something to the harness, so that they are whole and not negative."""
STOPS = ("", "stop", "length")
"""Why a model of ours stops; an endpoint and other people's systems have words of their own."""


@dataclass
class Asked:
    """What the rows of one pipeline are held against.

    queries: the asked questions by id, with their pools in that setting
    """

    queries: Mapping[str, Query]
    corpus: Corpus
    entry: Mapping[str, Any]
    pipeline: Pipeline
    systems: Systems
    known: Known = field(init=False)
    k: int | None = field(init=False)
    """The most documents that a row can rank; None: nobody can say."""
    given: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.known = Known(self.corpus)
        self.k = most_hits(self.pipeline, self.systems, self.entry)
        self.given = given(self.pipeline, self.systems)


def most_hits(pipeline: Pipeline, systems: Systems, entry: Mapping[str, Any]) -> int | None:
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
    silent = ranking and entry["setting"] == "corpus" and ranking[0].depth is None
    if silent and hasattr(systems[0], "retrieve"):
        depths.append(DEPTH)
    return min(depths, default=None)


def given(pipeline: Pipeline, systems: Systems) -> int | None:
    """How many of the best ranked documents the last stage is given to read.

    None: it finds by itself what it reads (one that solves), answers nothing, or is not known here.
    """
    depth, last = pipeline.stages[-1].depth, systems[-1]
    if not hasattr(last, "answer") or hasattr(last, "solve"):
        return None
    return READ if depth is None else depth


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
    seen, unread = Seen(), 0
    try:
        for number, line in lines(path):
            where = f"{name}:{number}"
            row = _row(line, where, found)
            if row is None:
                unread += 1
            elif row.id in seen.ids:
                found.add("coverage", where, f"the question {row.id} has a row already.")
            elif row.id not in asked.queries:
                found.add("coverage", where, f"the question {row.id} was not asked.")
            else:
                seen.add(row)
                _check(row, where, asked, found)
    except Unreadable as error:  # and nothing behind it can be read
        found.add("json", name, f"{error}.")
        return
    lacking = [query_id for query_id in asked.queries if query_id not in seen.ids]
    if (count := len(lacking) - unread) > 0:
        one = "" if unread else f", such as {lacking[0]}"
        found.add("coverage", name, f"no row for {counted(count, 'question')}{one}.")
    if not unread:
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
    if not {*map(type, row.counts.values())} <= {float, int}:
        return "a count in it is no number"
    said = row.answer and row.answer.answerable
    if not isinstance(row.extras, dict) or not isinstance(said, bool | None):
        return "its extras are no object, or what it says of answerable is neither true nor false"
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
    """What its last stage can say, the door for rankings, and every pointer."""
    query = asked.queries[row.id]
    for wrong in _impossible(row, asked):
        found.add("row", where, wrong)
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
    _read(row, query, where, asked, found)
    if row.answer is not None:
        _places(row.answer, where, asked.corpus, found)


def _impossible(row: Row, asked: Asked) -> Iterator[str]:
    """What the last stage of the pipeline cannot have said of itself, a sentence each."""
    last = asked.systems[-1]
    ours = last is not None and last.__module__.partition(".")[0] == registry.PACKAGES["systems"]
    texts = "raw", "answer"
    written = [name for name in ("read", "stop", "counts", "extras") if getattr(row, name)]
    if row.error and (more := [*written, *(name for name in texts if getattr(row, name))]):
        yield f"it errs, and has {more[0]} all the same: no run writes that."
    if hasattr(last, "external"):
        if {*written} - {"counts"} or row.counts not in ({}, NOT_IN_FILE.counts):
            yield f"its results are from a file, which says nothing of {written[0]}."
    elif ours and not asked.entry["answers"] and (row.read or row.stop):
        yield f"{asked.pipeline.stages[-1].system.name} reads no passages and writes nothing."
    if "not_in_file" in row.counts and last is not None and not from_outside(last):
        yield "it has not_in_file, and asks no file."
    for name, value in row.counts.items():
        if (ours or name in WHOLE) and (value < 0 or value % 1):
            yield f"{name} is {value}, and counts are whole and not negative."
    if ours and not _asks_endpoint(asked.pipeline) and row.stop not in STOPS:
        yield f"it stopped for {told(row.stop)}, which no model here gives as a reason."


def _asks_endpoint(pipeline: Pipeline) -> bool:
    return any(name == "endpoint" for name, _ in pipeline.stages[-1].system.options)


def _read(row: Row, query: Query, where: str, asked: Asked, found: Findings) -> None:
    """Passages that were read are among those that the last stage was given, or could find."""
    read = set(row.read)
    if query.pool is not None and (strange := read.difference(query.pool)):
        found.add("pool", where, f"it read {min(strange)}, which is not in the question's pool.")
    elif asked.given is not None:
        if strange := read.difference(hit.id for hit in row.hits[: asked.given]):
            best = f"{asked.given} best ranked" if asked.given else "no passages"
            found.add("read", where, f"it read {min(strange)}, and was given the {best}.")
    elif asked.entry["answers"] and asked.k is not None and len(read) > asked.k:
        passed = counted(asked.k, "passage")
        found.add("read", where, f"it read {len(read)}, and the stage before passes on {passed}.")


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
