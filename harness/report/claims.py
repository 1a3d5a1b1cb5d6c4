"""Tables of claim-level metrics: one a judge, prompt and sample of questions.

Never a column beside the scores of a benchmark: a judge is named above each table, with its
prompt's hash and how many of its replies could not be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.data import HarnessError
from harness.report.sheet import Folders, Sheet, Style, listed, titled, written
from harness.score.claims import METRICS
from harness.score.intervals import cluster_intervals
from harness.score.judgements import claim_lines, key_of, read_claims
from harness.score.results import Sample, present

Judgings = Sequence[Mapping[str, Any]] | None
KEY = (
    "Claim-level metrics as RAGChecker defines them (docs/claims.md); noise and hallucination are "
    "better when lower. Under each metric: questions (groups), kind of gold. They say as "
    "much as their judge."
)
GOLDLESS = ("faithfulness",)
"""Metrics that do not ask whether an answer is right."""
STALE = "the rows have changed since: judge again (`python -m harness claims {folder}`)."


@dataclass(frozen=True)
class ClaimRecord:
    """One cell: a claim-level metric of a system, in 0..1, with its 95 % interval, and its judge.

    gold:   the kind of the answers that claims are compared with; empty if with passages alone
    unread: share of the judge's replies that could not be read; failed: questions that it could
    not judge, which are left out; unanswered: those errored or missing, which score 0
    """

    task: str
    split: str
    setting: str
    system: str
    judge: str
    prompt: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    groups: int
    gold: str
    unread: float
    failed: int
    unanswered: int
    generated: bool


def claim_records(folders: Folders, only: Judgings = None) -> list[ClaimRecord]:
    """Every cell of these runs whose rows are those that were judged; `HarnessError` for damaged
    files.

    only: what `judge_run` returned, to have the cells of that alone
    """
    return [
        cell
        for folder in listed(folders)
        for head, rows in _judged(folder, read_claims(folder), only)
        for cell in _cells(head, rows)
    ]


def claims_report(folders: Folders, style: Style = "table", only: Judgings = None) -> str:
    """The tables of one or more runs as text, and what is not shown; empty if nobody judged
    them.

    only: what `judge_run` returned, to have the tables of that alone
    """
    sheets, notes = claim_sheets(folders, style, only)
    found = [written(sheet, style) for _, sheet in sheets]
    return "\n\n".join([*found, *([KEY] if found else []), *notes])


def claim_sheets(
    folders: Folders, style: Style, only: Judgings = None
) -> tuple[list[tuple[str, Sheet]], list[str]]:
    """The tables of one or more runs, each with the digest of the sample that it is about; then a
    note for each run of which something is not shown."""
    tables: dict[tuple[Any, ...], list[tuple[Mapping[str, Any], list[ClaimRecord]]]] = {}
    notes = []
    for folder in listed(folders):
        try:
            heads = read_claims(folder)
            found = _judged(folder, heads, only)
        except HarnessError as error:
            notes.append(f"No claims of {folder} are shown: {error}")
            continue
        if only is None and len(found) < len(heads):
            notes.append(f"Some claims of {folder} are not shown: {STALE.format(folder=folder)}")
        for head, rows in found:
            key = tuple(head[name] for name in ("sample", "judge", "prompt"))
            tables.setdefault(key, []).append((head, _cells(head, rows)))
    return [(sample, _sheet(each, style)) for (sample, *_), each in tables.items()], notes


def _judged(
    folder: Path, heads: Sequence[dict[str, Any]], only: Judgings
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """What claims.json says of each judge and pipeline whose rows are still those it saw, each with
    its lines of claims.jsonl."""
    now = present(folder) if heads else {}
    fresh = [h for h in heads if now.get(h["sample"], {}).get(h["system"]) == h["rows"]]
    wanted = set(map(key_of, heads if only is None else only))
    found = {key_of(h): (h, list[dict[str, Any]]()) for h in fresh if key_of(h) in wanted}
    for line in claim_lines(folder, heads) if heads else ():
        if key_of(line) in found:
            found[key_of(line)][1].append(line)
    return list(found.values())


def _cells(head: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[ClaimRecord]:
    names = [name for name in METRICS if any(name in row["metrics"] for row in rows)]
    values = np.array(
        [[row["metrics"].get(name, math.nan) for name in names] for row in rows], dtype=np.float64
    ).reshape(len(rows), len(names))
    mean, low, high, groups = cluster_intervals(values, [str(row["group"]) for row in rows])
    where = {name: head[name] for name in ("task", "split", "setting", "system", "judge", "prompt")}
    return [
        ClaimRecord(
            **where,
            metric=name,
            value=float(mean[place]),
            low=None if math.isnan(low[place]) else float(low[place]),
            high=None if math.isnan(high[place]) else float(high[place]),
            n=len(rows),
            groups=int(groups[place]),
            gold="" if name in GOLDLESS else "official",
            unread=head["unread"] / head["replies"] if head["replies"] else 0.0,
            failed=head["failed"],
            unanswered=sum(bool(row["state"]) for row in rows),
            generated=head["generated"],
        )
        for place, name in enumerate(names)
    ]


def _sheet(lines: Sequence[tuple[Mapping[str, Any], list[ClaimRecord]]], style: Style) -> Sheet:
    head = lines[0][0]
    cells = {each["system"]: {cell.metric: cell for cell in own} for each, own in lines}
    shown = [name for name in METRICS if any(name in own for own in cells.values())]
    prompt = f"prompt {head['prompt']}" if head["prompt"] else "no prompt"
    by = f"claims by {head['judge']} ({prompt})"
    form = "\n{}" if style == "table" else " ({})"
    rows = []
    for each, own in lines:
        found = cells[each["system"]]
        rows.append((each["system"], *(_cell(found.get(m), form) for m in shown), _end(each, own)))
    most = {m: max((c[m] for c in cells.values() if m in c), key=lambda c: c.n) for m in shown}
    heads = (_heading(cell, style) for cell in most.values())
    limited = [] if head["limit"] is None else [_questions(head)]
    title = titled(Sample.of(head), head["generated"], *limited, by)
    return Sheet(title, ("system", *heads, "judge"), tuple(rows))


def _questions(head: Mapping[str, Any]) -> str:
    count = head["judged"] + head["failed"]
    return f"{count} questions with a gold answer, seed {head['seed']}"


def _heading(cell: ClaimRecord, style: Style) -> str:
    """The metric with its n, groups and kind of gold; on a terminal it has a word a line."""
    name = cell.metric.replace("_", "\n") if style == "table" else cell.metric
    return f"{name}\n{cell.n} ({cell.groups})\n{cell.gold or 'no gold'}"


def _cell(cell: ClaimRecord | None, form: str) -> str:
    if cell is None:
        return "–"
    known = cell.low is not None and cell.high is not None
    return f"{cell.value:.3f}" + (form.format(f"{cell.low:.3f}–{cell.high:.3f}") if known else "")


def _end(head: Mapping[str, Any], cells: Sequence[ClaimRecord]) -> str:
    """What to know of the judge's work and of the answers."""
    told = [f"judged={head['judged']}", f"unanswered={cells[0].unanswered if cells else 0}"]
    if head["replies"]:
        told.append(f"unread={head['unread']}/{head['replies']}")
    return ", ".join([*told, *([f"failed={head['failed']}"] if head["failed"] else [])])
