"""From scores to tables: means with cluster-bootstrap intervals, n and groups of every column.

A table is one task, split and setting; none mixes generated with real data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.data import HarnessError
from harness.score.intervals import cluster_intervals
from harness.score.scoring import CEILING, FLOOR, read_manifest
from harness.spelling import parse_spelled

if TYPE_CHECKING:
    import pandas

Folders = Path | str | Sequence[Path | str]
Format = Literal["table", "markdown", "csv", "latex", "json"]
MINI = "mechanism test on a generated world; says nothing about the real datasets"
KEY = (
    "Under each metric: questions (groups), kind of gold. "
    "Cells: mean, 95 % cluster-bootstrap interval over groups."
)
BOUNDS = (FLOOR, CEILING)


@dataclass(frozen=True)
class Record:
    """One cell: a metric of a system on a task, in 0..1, with its 95 % interval."""

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


@dataclass(frozen=True)
class Line:
    """A system's row of a table: its records by metric, and how its questions ended."""

    system: str
    cells: dict[str, Record]
    errors: int
    cut: int
    abstained: int


@dataclass(frozen=True)
class Table:
    """All systems of one task, split and setting."""

    task: str
    split: str
    setting: str
    generated: bool
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """What stands above the table."""
        title = f"{self.task} · {self.split} · {self.setting}"
        return f"{title} — {MINI}" if self.generated else title

    def shown(self) -> list[str]:
        """The task's metrics that some system has a value for."""
        return [m for m in self.metrics if any(m in line.cells for line in self.lines)]

    def heading(self, metric: str) -> str:
        """The metric with its n, groups and kind of gold."""
        cells = [line.cells[metric] for line in self.lines if metric in line.cells]
        most = max(cells, key=lambda cell: cell.n)
        return f"{metric}\n{most.n} ({most.groups})\n{most.gold}"


def tables(folders: Folders) -> list[Table]:
    """Every table of these runs; a system that stands in two runs is taken from the last."""
    found: dict[tuple[str, str, str], Table] = {}
    for folder in [folders] if isinstance(folders, Path | str) else folders:
        folder = Path(folder)
        manifest = read_manifest(folder)["pipelines"]
        for key, rows in _scores(folder).items():
            entries = [e for e in manifest if (e["task"], e["split"], e["setting"]) == key]
            if not entries:
                continue
            new = _table(key, rows, entries)
            old = found.get(key)
            found[key] = _joined(old, new) if old else new
    return list(found.values())


def _scores(folder: Path) -> dict[tuple[str, str, str], dict[str, list[dict[str, Any]]]]:
    """Lines of scores.jsonl by table and system."""
    path = folder / "scores.jsonl"
    if not path.exists():
        raise HarnessError(
            f"{folder} is not scored yet.", f"Score it: `python -m harness score {folder}`."
        )
    found: dict[tuple[str, str, str], dict[str, list[dict[str, Any]]]] = {}
    with path.open(encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            table = found.setdefault((line["task"], line["split"], line["setting"]), {})
            table.setdefault(line["system"], []).append(line)
    return found


def _table(
    key: tuple[str, str, str],
    systems: dict[str, list[dict[str, Any]]],
    entries: list[dict[str, Any]],
) -> Table:
    task, split, setting = key
    ranked = {m: None for row in systems.get(CEILING, ()) for m in row["metrics"]}
    lines = tuple(_line(key, system, rows, set(ranked)) for system, rows in systems.items())
    metrics = [*entries[-1]["metrics"], *ranked]
    return Table(
        task, split, setting, bool(entries[0]["generated"]), tuple(dict.fromkeys(metrics)), lines
    )


def _line(
    key: tuple[str, str, str], system: str, rows: list[dict[str, Any]], ranked: set[str]
) -> Line:
    """The records of one system; ``ranked`` are the metrics whose gold is relevance."""
    task, split, setting = key
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    values = np.array(
        [[row["metrics"].get(m, math.nan) for m in metrics] for row in rows],
        dtype=np.float64,
    ).reshape(len(rows), len(metrics))
    mean, low, high, groups = cluster_intervals(values, [str(row["group"]) for row in rows])
    states = [row["state"] for row in rows]
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
            _gold(metric, rows) if metric in ranked else "official",
            states.count("error"),
        )
        for c, metric in enumerate(metrics)
    }
    return Line(
        system, cells, states.count("error"), states.count("length"), states.count("abstained")
    )


def _gold(metric: str, rows: list[dict[str, Any]]) -> str:
    kinds = {str(row["gold"]) for row in rows if metric in row["metrics"]}
    return "+".join(sorted(kinds))


def _joined(old: Table, new: Table) -> Table:
    lines = {line.system: line for line in (*old.lines, *new.lines)}
    metrics = tuple(dict.fromkeys((*old.metrics, *new.metrics)))
    return Table(new.task, new.split, new.setting, new.generated, metrics, tuple(lines.values()))


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
    """The tables of one or more runs as text."""
    if style == "json":
        return json.dumps([asdict(record) for record in records(folders)], indent=1)
    if style == "csv":
        import pandas

        return pandas.DataFrame(map(asdict, records(folders))).to_csv(index=False).rstrip()
    write = {"table": _terminal, "markdown": _markdown, "latex": _latex}[style]
    return "\n\n".join([*(write(table) for table in _ordered(tables(folders))), KEY])


def _ordered(found: Iterable[Table]) -> list[Table]:
    """Bounds last; tables as they came."""
    return [
        Table(
            t.task,
            t.split,
            t.setting,
            t.generated,
            t.metrics,
            tuple(sorted(t.lines, key=lambda line: line.system in BOUNDS)),
        )
        for t in found
    ]


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
    ends = [f"errors={line.errors}"]
    ends += [f"cut={line.cut}"] if line.cut else []
    return ends + ([f"abstained={line.abstained}"] if line.abstained else [])


def _terminal(table: Table) -> str:
    from rich.console import Console
    from rich.table import Table as Grid

    grid = Grid(title=table.title, title_justify="left", title_style="bold", show_lines=False)
    grid.add_column("system", overflow="fold", max_width=48)
    for metric in table.shown():
        grid.add_column(table.heading(metric), justify="right", no_wrap=True)
    grid.add_column("ended")
    for row in _cells(table, "\n{}"):
        grid.add_row(*row)
    out = StringIO()
    Console(file=out, width=80 + 16 * len(table.shown()), no_color=True).print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _frame(table: Table, line_break: str) -> pandas.DataFrame:
    import pandas

    heads = [table.heading(m).replace("\n", line_break) for m in table.shown()]
    return pandas.DataFrame(_cells(table, " ({})"), columns=["system", *heads, "ended"])


def _markdown(table: Table) -> str:
    return f"**{table.title}**\n\n{_frame(table, '<br>').to_markdown(index=False)}"


def _latex(table: Table) -> str:
    escaped = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\^{}"}
    caption = "".join(escaped.get(c, c) for c in table.title)
    frame = _frame(table, ", ")
    styled = frame.map(lambda text: "".join(escaped.get(c, c) for c in text))
    styled.columns = ["".join(escaped.get(c, c) for c in head) for head in frame.columns]
    return str(styled.to_latex(index=False, caption=caption, escape=False))
