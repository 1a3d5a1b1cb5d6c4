"""From scores to tables: means with cluster-bootstrap intervals, n and groups of every column.

A table is one sample of questions: one task, split, setting, fingerprint, limit and seed. Runs
that share all of these are shown in one table; nothing else is, so that none mixes generated
with real data.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.data import HarnessError
from harness.report import latency
from harness.report.claims import claims_report
from harness.report.sheet import Folders, Sheet, Style, listed, titled, written
from harness.score.intervals import cluster_intervals
from harness.score.results import CEILING, FLOOR, Sample, Scores, read_scores
from harness.spelling import parse_spelled

Format = Literal["table", "markdown", "csv", "latex", "json"]
KEY = (
    "Under each metric: questions (groups), kind of gold. "
    "Cells: mean, 95 % cluster-bootstrap interval over groups "
    "(all 0 or all 1: one-sided exact bound). Smallest difference to be seen: half the widest 95 % "
    "interval of the paired difference between a system and the best one of its run."
)
VISIBLE = "(smallest difference to be seen)"
BOUNDS = (FLOOR, CEILING, VISIBLE)
"""Lines that no system wrote."""


@dataclass(frozen=True)
class Record:
    """One cell: a metric of a system on a task, in 0..1, with its 95 % interval.

    ``errors`` counts the missing questions too; ``generated``: the task is of the mini world.
    """

    task: str
    split: str
    setting: str
    profile: str
    system: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    groups: int
    gold: str
    errors: int
    generated: bool


@dataclass(frozen=True)
class Line:
    """A system's row of a table: its records by metric, how its questions ended, its run."""

    system: str
    cells: dict[str, Record]
    ended: Counter[str]
    run: str


@dataclass(frozen=True)
class Table:
    """All systems that were asked one sample of questions; floor and ceiling come last.

    metrics: the task's metrics, in order; notes: what to say under the table
    """

    sample: Sample
    questions: int
    generated: bool
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What stands above the table."""
        asked = self.sample
        limited = [f"{self.questions} questions, seed {asked.seed}"] * (asked.limit is not None)
        return titled(asked, self.generated, *limited)

    def shown(self) -> list[str]:
        """The task's metrics that some system has a value for."""
        return [m for m in self.metrics if any(m in line.cells for line in self.lines)]

    def heading(self, metric: str) -> str:
        """The metric with its n, groups and kind of gold."""
        cells = [line.cells[metric] for line in self.lines if metric in line.cells]
        most = max(cells, key=lambda cell: cell.n)
        return f"{metric}\n{most.n} ({most.groups})\n{most.gold}"


def tables(folders: Folders) -> list[Table]:
    """Every table of these runs; a system that stands in two of them is taken from the last.

    Raises `HarnessError` for a run that is not scored, or whose rows changed since.
    """
    found: dict[Sample, Table] = {}
    for folder in listed(folders):
        for scores in read_scores(folder):
            new = _table(scores, str(folder))
            old = found.get(scores.sample)
            found[scores.sample] = _joined(old, new) if old else new
    titles = Counter(table.title for table in found.values())
    return [_told_apart(table) if titles[table.title] > 1 else table for table in found.values()]


def _told_apart(table: Table) -> Table:
    """With a note of what a table does not share with another of the same title."""
    asked = table.sample
    note = f"Not joined with the other: data {asked.fingerprint}, seed {asked.seed}."
    return replace(table, notes=(*table.notes, note))


def _table(scores: Scores, run: str) -> Table:
    lines = [_line(scores, system, rows, run) for system, rows in scores.lines.items()]
    metrics = (*scores.answer_metrics, *scores.ranking_metrics)
    if (seen := _visible(scores, lines, run)).cells:
        lines.append(seen)
    return Table(scores.sample, scores.questions, scores.generated, metrics, _ordered(lines))


def _ordered(lines: Sequence[Line]) -> tuple[Line, ...]:
    order = {system: place for place, system in enumerate(BOUNDS, 1)}
    return tuple(sorted(lines, key=lambda line: order.get(line.system, 0)))


def _visible(scores: Scores, lines: Sequence[Line], run: str) -> Line:
    """The smallest difference to be seen, by metric; see `KEY`."""
    cells = {}
    own = [line for line in lines if line.system not in BOUNDS]
    for metric in (*scores.answer_metrics, *scores.ranking_metrics):
        having = [line for line in own if metric in line.cells]
        if len(having) < 2:
            continue
        best = max(having, key=lambda line: line.cells[metric].value)
        values = {line.system: _values(scores, line.system, metric) for line in having}
        apart = np.array([values[best.system] - values[line.system] for line in having]).T
        apart = apart[:, (apart != 0).any(axis=0)]  # of a system that never differs, nothing
        if not apart.size:
            continue
        groups = [str(row["group"]) for row in scores.lines[best.system]]
        _, low, high, _ = cluster_intervals(apart, groups)
        known = (high - low)[np.isfinite(high - low)]
        if known.size:
            half = float(known.max() / 2)
            cells[metric] = replace(
                best.cells[metric], system=VISIBLE, value=half, low=None, high=None, errors=0
            )
    return Line(VISIBLE, cells, Counter(), run)


def _values(scores: Scores, system: str, metric: str) -> Any:
    """A metric of each question, in order; NaN where there is none."""
    rows = scores.lines[system]
    return np.array([row["metrics"].get(metric, math.nan) for row in rows], dtype=np.float64)


def _line(scores: Scores, system: str, rows: list[dict[str, Any]], run: str) -> Line:
    """The records of one system."""
    task, split, setting = scores.sample[:3]
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    values = np.array(
        [[row["metrics"].get(m, math.nan) for m in metrics] for row in rows],
        dtype=np.float64,
    ).reshape(len(rows), len(metrics))
    mean, low, high, groups = cluster_intervals(values, [str(row["group"]) for row in rows])
    ended = Counter(str(row["state"]) for row in rows)
    profile = dict(parse_spelled(task).options).get("profile", "")
    bound = system in BOUNDS
    cells = {
        metric: Record(
            task,
            split,
            setting,
            profile,
            system,
            metric,
            float(mean[c]),
            None if bound or math.isnan(low[c]) else float(low[c]),
            None if bound or math.isnan(high[c]) else float(high[c]),
            int((~np.isnan(values[:, c])).sum()),
            int(groups[c]),
            _gold(metric, rows) if metric in scores.ranking_metrics else "official",
            ended["error"] + ended["missing"],
            scores.generated,
        )
        for c, metric in enumerate(metrics)
    }
    return Line(system, cells, ended, run)


def _gold(metric: str, rows: list[dict[str, Any]]) -> str:
    kinds = {str(row["gold"]) for row in rows if metric in row["metrics"]}
    return "+".join(sorted(kinds))


def _joined(old: Table, new: Table) -> Table:
    """One table of two runs; the second's lines replace those of the same systems."""
    lines = {line.system: line for line in old.lines}
    notes = list(old.notes)
    for line in new.lines:
        before = lines.get(line.system)
        if before and line.system in BOUNDS:
            line = replace(line, cells=_greater(before.cells, line.cells))
        elif before:
            last, first = _apart(line.run, before.run)
            notes.append(f"{line.system}: from {last}, not from {first}.")
        lines[line.system] = line
    metrics = tuple(dict.fromkeys((*old.metrics, *new.metrics)))
    return replace(new, metrics=metrics, lines=_ordered(list(lines.values())), notes=tuple(notes))


def _apart(one: str, other: str) -> tuple[str, str]:
    """The names of two folders, with as many of those above them as tell them apart."""
    parts = [Path(each).resolve().parts for each in (one, other)]
    most = max(map(len, parts))
    n = next((n for n in range(1, most) if parts[0][-n:] != parts[1][-n:]), 1)
    return "/".join(parts[0][-n:]), "/".join(parts[1][-n:])


def _greater(one: dict[str, Record], other: dict[str, Record]) -> dict[str, Record]:
    """The cells of both; of a metric that both have, the greater."""
    cells = {**one, **other}
    return {
        m: max(one.get(m, cell), cell, key=lambda each: each.value) for m, cell in cells.items()
    }


def records(folders: Folders) -> list[Record]:
    """Every cell of these runs but floors and ceilings."""
    return [
        record
        for table in tables(folders)
        for line in table.lines
        if line.system not in BOUNDS
        for record in line.cells.values()
    ]


def report(folders: Folders, style: Format = "table") -> str:
    """The tables of one or more runs as text, then those of their claims and of their latency, if
    there are any.

    json and csv have the scores alone (`claims.claim_records` and `latency.records` have more).
    """
    if style == "json":
        return json.dumps([asdict(record) for record in records(folders)], indent=1)
    if style == "csv":
        import pandas

        return pandas.DataFrame(map(asdict, records(folders))).to_csv(index=False).rstrip()
    timed = _timed(folders, style)
    scored = [folder for folder in listed(folders) if not (timed and latency.alone(folder))]
    found = [written(sheet(table, style), style) for table in tables(scored)]
    judged = claims_report(scored, style)
    return "\n\n".join([*found, *([KEY] if found else []), *filter(None, (judged, timed))])


def _timed(folders: Folders, style: Style) -> str:
    """The tables of latency; if they cannot be read, why, so that the scores are shown still."""
    try:
        return latency.report(folders, style)
    except HarnessError as error:
        return f"No latency is shown: {error}"


def sheet(table: Table, style: Style) -> Sheet:
    """The table as text; on a terminal an interval stands under its mean."""
    form = "\n{}" if style == "table" else " ({})"
    heads = ("system", *map(table.heading, table.shown()), "ended")
    return Sheet(table.title, heads, tuple(map(tuple, _cells(table, form))), table.notes)


def _cell(record: Record | None, form: str, n: int) -> str:
    """Value and interval; – where there is none; n where it is not the column's."""
    if record is None:
        return "–"
    text = f"{record.value:.3f}"
    if record.low is not None and record.high is not None:
        text += form.format(f"{record.low:.3f}–{record.high:.3f}")
    return text if record.n == n else text + form.format(f"n={record.n}")


def _cells(table: Table, form: str) -> list[list[str]]:
    """The table as text; ``form`` is how an interval stands behind its mean."""
    shown = table.shown()
    most = {m: max(ln.cells[m].n for ln in table.lines if m in ln.cells) for m in shown}
    rows = []
    for line in table.lines:
        ends = "" if line.system in BOUNDS else ", ".join(_ends(line))
        cells = [_cell(line.cells.get(metric), form, most[metric]) for metric in shown]
        rows.append([line.system, *cells, ends])
    return rows


def _ends(line: Line) -> list[str]:
    """How questions ended that did not end well; the errors always."""
    names = {"missing": "missing", "length": "cut", "abstained": "abstained"}
    found = [f"{name}={line.ended[state]}" for state, name in names.items() if line.ended[state]]
    return [f"errors={line.ended['error']}", *found]
