"""Judging a finished run claim by claim: what a judge is, what it is shown, what it said.

It is written to files of its own (`harness.score.judgements`): nothing enters scores.jsonl, so that
no gate compares a judge's opinion. A question whose gold has no answer is not judged; one that
errored or is missing is an answer without claims, which has 0 in everything. Passages are those
that rows say were read; those that were handed to be read where no row of a pipeline says it. To an
imported pipeline nobody here handed any, whatever it ranks. A pipeline that reads none has
precision, recall and F1 alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from harness import manifest, registry
from harness.canonical import named_questions, open_corpus, read_gold, read_lines, sample
from harness.contract import Task
from harness.data import DATA, Document, Gold, HarnessError, Row, Triple
from harness.provenance import imported
from harness.run.progress import Progress, silent
from harness.run.stages import READ
from harness.run.store import asked_rows
from harness.score.claims import OVERALL, Tables, claim_metrics
from harness.score.judgements import write_claims
from harness.score.results import Sample, present, read_manifest
from harness.score.scoring import data_of
from harness.spelling import is_named, parse_pipeline, parse_spelled

Entry = Mapping[str, Any]
GIVE_UP = 3
"""Questions that a judge fails on in a row before it is not asked any more."""


class Case(NamedTuple):
    """What a judge is shown of one question. ``id`` is the task's own; ``answer`` is the main gold
    answer; ``passages`` are those that were read, best first."""

    id: str
    question: str
    answer: str
    response: str
    passages: tuple[Document, ...] = ()

    @property
    def references(self) -> list[str]:
        """The passages as text, a title on its own line."""
        return [f"{each.title}\n{each.text}" if each.title else each.text for each in self.passages]


class Judged(NamedTuple):
    """The claims of a case, and what entails them."""

    response_claims: Sequence[Triple]
    answer_claims: Sequence[Triple]
    tables: Tables


class Judge(Protocol):
    """Breaks answers into claims and checks them; one that has ``judged(case) -> Judged`` does both
    at once needs no other method but `open`. One that has ``expect(cases)`` is told the cases of a
    pipeline before it is asked about the first; what it raises then is a mistake of the user's. One
    that has a ``name`` is called so in tables, others as they are spelled or by their class.

    prompt:  all that it tells a model, for the hash; empty if it asks none
    replies: how many it has had, and ``unread``, how many of them could not be read. What could
             not be read counts as no claim and as no entailment
    """

    prompt: str
    replies: int
    unread: int

    def open(self, task: Task, split: str, folder: Path) -> None:
        """Get ready for a task's split; ``folder`` is where replies may be kept."""
        ...

    def claims(self, question: str, text: str) -> Sequence[Triple]:
        """The claims that a text makes as an answer to the question."""
        ...

    def check(
        self, question: str, claims: Sequence[Triple], references: Sequence[str]
    ) -> Sequence[Sequence[bool]]:
        """Whether each text entails each claim: (references, claims)."""
        ...


class Exact:
    """The judge of a generated world, which knows what is stated in it (`Task.judge`)."""

    prompt = ""
    replies = unread = 0

    def open(self, task: Task, split: str, folder: Path) -> None:  # noqa: ARG002
        found = task.judge(split)
        if found is None:
            raise HarnessError(
                f"{task.name} is no generated world: nobody can judge its claims exactly.",
                "Write --judge endpoint:url=URL,model=NAME, model:NAME or labels:FILE.",
            )
        self.claims, self.check = found.claims, found.check


def judged(judge: Any, case: Case) -> Judged:
    """The claims of a case and their tables, by a judge's own `judged` or by its two parts."""
    if callable(whole := getattr(judge, "judged", None)):
        found: Judged = whole(case)
        return found
    said, right = (
        list(judge.claims(case.question, text)) if text else []
        for text in (case.response, case.answer)
    )

    def by(claims: Sequence[Triple], references: Sequence[str]) -> list[list[bool]]:
        """(claims, references)"""
        if not claims or not references:
            return [[] for _ in claims]
        rows = judge.check(case.question, claims, references)
        return [list(map(bool, column)) for column in zip(*rows, strict=True)]

    def once(claims: Sequence[Triple], text: str) -> list[bool]:
        return [row[0] for row in by(claims, [text])] if text else [False] * len(claims)

    tables = Tables(
        once(said, case.answer),
        once(right, case.response),
        by(said, case.references),
        by(right, case.references),
    )
    return Judged(said, right, tables)


# --- the questions of a run -----------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """One question of a pipeline, its case, and how its row ended."""

    id: str
    group: str
    state: str
    case: Case


def chosen(folder: Path, task: str | None, system: str | None) -> list[Entry]:
    """The pipelines of a run that answer, or those of them that are named."""
    entries = [
        entry
        for entry in read_manifest(folder)["pipelines"]
        if entry["answers"]
        and (task is None or is_named(entry["task"], task))
        and system in (None, entry["system"])
    ]
    if not entries:
        raise HarnessError(
            f"{folder} has no such pipeline that answers.", "`report` shows what it has."
        )
    return entries


def asked(folder: Path, entry: Entry, home: Path | None = None) -> list[Asked]:
    """The questions of a pipeline that have a gold answer, in the order of its rows; ``home`` is
    where prepared data is kept."""
    data = data_of(entry, "gold.jsonl", home)
    texts = {row["id"]: row["text"] for row in read_lines(data / "queries.jsonl")}
    ids, golds = sample(texts, entry["limit"], entry["seed"]), read_gold(data)
    names, corpus = named_questions(data), open_corpus(data)

    rows = list(asked_rows(folder / entry["rows"], ids))
    says = imported(entry) or any(row.read for _, row in rows if row)
    depth = parse_pipeline(entry["system"]).stages[-1].depth

    def one(query_id: str, row: Row | None, gold: Gold) -> Asked:
        case = Case(names[query_id].native, texts[query_id], gold.answers[0], "")
        if row is None or row.error:
            return Asked(query_id, gold.group, "error" if row else "missing", case)
        text = row.answer.text if row.answer else ""
        given = [hit.id for hit in row.hits[: READ if depth is None else depth]]
        places = corpus.positions(row.read if says else given)
        read = tuple(corpus[int(place)] for place in places if place >= 0)
        return Asked(query_id, gold.group, "", case._replace(response=text, passages=read))

    return [one(i, row, golds[i]) for i, row in rows if golds[i].answerable and golds[i].answers]


# --- judging --------------------------------------------------------------------------


def judge_run(
    folder: Path | str,
    judge: str | Any = "exact",
    *,
    task: str | None = None,
    system: str | None = None,
    data: Path | str = DATA,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Judge the answers of a run and write both files; returns what claims.json says of each
    pipeline.

    judge: spelled as on the command line, or a `Judge`, which is called by its class's name
    task, system: only these
    data:  where prepared data is kept, if it is not where it was when the run was made; replies are
           kept there, too, under ``judgements``
    A question that the judge fails on is left out and counted (``failed``). Raises `HarnessError`
    if it fails on all, or on `GIVE_UP` in a row: what it replied before is kept.
    """
    folder = Path(folder)
    entries = chosen(folder, task, system)
    one = (
        registry.create("judges", parse_spelled(judge, "judge"))
        if isinstance(judge, str)
        else judge
    )
    head = _named(one, judge if isinstance(judge, str) else type(judge).__name__)
    heads: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for entry in entries:
        one.open(registry.task(parse_spelled(entry["task"])), entry["split"], Path(data))
        replies, unread = one.replies, one.unread
        questions = asked(folder, entry, Path(data))
        found, why = _judge_all(one, questions, entry, progress)
        about = {**head, "sample": Sample.of(entry).digest, "system": entry["system"]}
        lines += [{**about, **each} for each in found]
        heads.append(
            {
                **about,
                **_where(folder, entry),
                "judged": len(found),
                "failed": len(questions) - len(found),
                "why": why,
                "replies": one.replies - replies,
                "unread": one.unread - unread,
            }
        )
    write_claims(folder, heads, lines)
    return heads


def _named(judge: Any, spelled: str) -> dict[str, str]:
    prompt = manifest.digest(judge.prompt) if judge.prompt else ""
    return {"judge": str(getattr(judge, "name", spelled)), "prompt": prompt}


def _where(folder: Path, entry: Entry) -> dict[str, Any]:
    """What was judged: the questions, and the rows as they are now."""
    which = Sample.of(entry)
    rows = present(folder)[which.digest][entry["system"]]
    return {**which._asdict(), "generated": entry["generated"], "rows": rows}


def _judge_all(
    judge: Any, questions: Sequence[Asked], entry: Entry, progress: Progress
) -> tuple[list[dict[str, Any]], str]:
    """A line for each question that could be judged, and the last reason why one could not."""
    found: list[dict[str, Any]] = []
    why, row = "", 0
    if callable(expect := getattr(judge, "expect", None)):
        expect([each.case for each in questions])
    reads = any(each.case.passages for each in questions)
    with progress(f"{entry['task']} {entry['system']}: claims", len(questions), 0) as advance:
        for each in questions:
            try:
                found.append(_line(each, judged(judge, each.case), reads))
                row = 0
            except HarnessError as error:
                why, row = str(error), row + 1
                if row == GIVE_UP:
                    raise
            advance(1)
    if why and not found:
        raise HarnessError(f"no question could be judged: {why}")
    return found, why


def _line(one: Asked, found: Judged, reads: bool) -> dict[str, Any]:
    metrics = claim_metrics(found.tables)
    if not reads:
        metrics = {name: metrics[name] for name in OVERALL}
    return {
        "id": one.id,
        "group": one.group,
        "state": one.state,
        "response_claims": found.response_claims,
        "answer_claims": found.answer_claims,
        **found.tables._asdict(),
        "metrics": metrics,
    }
