"""How a leaderboard looks: one HTML file without scripts or requests, markdown, or JSON.

Everything that comes from a bundle is text here: `tag` escapes all that is not made by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from html import escape
from typing import Literal

from harness.report.leaderboard import Board, Line, Ranked, Timed
from harness.report.sheet import Sheet, titled, written
from harness.report.tables import Record
from harness.verify.report import PROVES, Report, as_json

Format = Literal["html", "markdown", "json"]
TITLE = "Leaderboard"
KEY = (
    "Rank: 1 + systems significantly better, to all - systems significantly worse "
    "(paired sign-flip tests over groups, Holm, 5 %). Cells: mean (95 % cluster-bootstrap "
    "interval over groups). Badges: arithmetic verified: scores recomputed from rows and gold; "
    "re-run (questions, agreement; rule): some were asked again here, and all must agree, or 95 % "
    "where the manifest tells of other code, packages, threads or another processor than are here; "
    "self-reported: neither, no rank. not zero-shot: its submitter names the task's data set as "
    "training data. options not checked: a system of the pipeline is not installed here, so that "
    "nobody looked whether it takes these options. same rows: every question is answered alike; "
    "they count as one and share its rank. "
)
SELF = (
    "Self-reported by submitters on their own machines, beside the quality that was computed here; "
    "it ranks nothing."
)
STYLE = """
:root{color-scheme:light dark}
body{font:1rem/1.5 system-ui,sans-serif;max-width:75rem;margin:auto;padding:1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.3rem 0}
th,td{padding:.35rem .6rem;border-bottom:1px solid #8886;text-align:right;vertical-align:top}
th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}
tbody th{font-weight:600;max-width:16rem;overflow-wrap:anywhere}
small{display:block;font-weight:400;opacity:.8}
.mark{border:1px solid;border-radius:.3rem;padding:0 .3rem;white-space:nowrap;font-size:.85rem}
dt{font-weight:600}dd{margin:0 0 .5rem;overflow-wrap:anywhere}
"""
TIMES = ("system", "quality", "p50 ms", "p95 ms", "questions", "on")
APART = "&#8203;"
"""A space of no width: what it parts is no address, name or formula to anybody."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Markup(str):
    """Text that `tag` made: it is not escaped again."""

    __slots__ = ()


def tag(_name: str, *children: str, **attributes: str) -> Markup:
    """An element; children and attributes are escaped unless they are `Markup`."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    inner = "".join(each if isinstance(each, Markup) else escape(each) for each in children)
    return Markup(f"<{_name}{told}>{inner}</{_name}>")


def render(board: Board, style: Format = "html") -> str:
    """The board as text of one of these forms."""
    write: dict[Format, Callable[[Board], str]] = {
        "html": html,
        "markdown": markdown,
        "json": as_text,
    }
    return write[style](board)


# --- HTML -----------------------------------------------------------------------------


def html(board: Board) -> str:
    """One file, whole in itself."""
    meta = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    )
    body = [
        tag("h1", TITLE),
        tag("p", KEY),
        tag("p", PROVES),
        *([tag("p", _drawn(board))] if board.seed is not None else []),
        *(_table(each) for each in board.tables),
        *_time(board.timed),
        *_refused(board.refused),
        tag("h2", "Systems"),
        *map(_details, board.accepted),
    ]
    head = Markup(meta) + tag("title", TITLE) + Markup(f"<style>{STYLE}</style>")
    page = tag("head", Markup(head)) + tag("body", tag("main", *body))
    return f"<!doctype html>\n{tag('html', Markup(page), lang='en')}\n"


def _grid(caption: str, heads: Iterable[Markup], rows: Iterable[Markup]) -> Markup:
    table = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *heads)), tag("tbody", *rows)
    )
    return tag("div", table, class_="wide", role="region", aria_label=caption, tabindex="0")


def _table(table: Ranked) -> Markup:
    heads = [tag("th", each, scope="col") for each in ("system", "rank")]
    heads += [
        tag("th", name, tag("small", _size(table, name)), scope="col") for name in table.metrics
    ]
    heads.append(tag("th", "marks", scope="col"))
    rows = [_row(line, table) for line in table.lines]
    for name, cells in table.bounds.items():
        numbers = [tag("td", _value(cells.get(metric))) for metric in table.metrics]
        rows.append(tag("tr", tag("th", name, scope="row"), tag("td", ""), *numbers, tag("td", "")))
    return tag("section", tag("h2", table.title), _grid(table.note, heads, rows))


def _row(line: Line, table: Ranked) -> Markup:
    cells = [
        tag("td", _value(cell), tag("small", _interval(cell)))
        for cell in map(line.cells.get, table.metrics)
    ]
    name = tag("th", line.name, tag("small", line.system), scope="row")
    marks = [tag("span", each, class_="mark") + Markup(" ") for each in line.marks]
    rank = tag("td", str(line.rank or "–"))
    return tag("tr", name, rank, *cells, tag("td", *map(Markup, marks)))


def _time(timed: Iterable[Timed]) -> list[Markup]:
    """The time that pipelines take, beside their quality."""
    rows = [
        tag(
            "tr",
            tag(
                "th",
                str(each.report.submission["system"]),
                tag("small", each.latency.system),
                scope="row",
            ),
            tag(
                "td", f"{each.metric} {_value(each.quality)}", tag("small", _interval(each.quality))
            ),
            tag("td", _ms(each.latency.p50_ms)),
            tag("td", _ms(each.latency.p95_ms)),
            tag("td", str(each.latency.questions)),
            tag("td", _where(each)),
        )
        for each in timed
    ]
    heads = [tag("th", each, scope="col") for each in TIMES]
    return [tag("h2", "Quality against time"), _grid(SELF, heads, rows)] if rows else []


def _refused(reports: Iterable[Report]) -> list[Markup]:
    found = [
        tag(
            "section",
            tag("h3", report.bundle, " ", tag("span", report.badge, class_="mark")),
            tag("ul", *(tag("li", str(finding)) for finding in report.findings)),
        )
        for report in reports
    ]
    return [tag("h2", "Not ranked: bundles with findings"), *found] if found else []


def _details(report: Report) -> Markup:
    head = tag("h3", str(report.submission["system"]), " ", tag("small", _shown_by(report)))
    pairs = [
        part
        for name, texts in _terms(report).items()
        for part in (tag("dt", name), *(tag("dd", each) for each in texts))
    ]
    return tag("section", head, tag("dl", *pairs))


# --- markdown and JSON ----------------------------------------------------------------


def markdown(board: Board) -> str:
    """Tables, refused bundles, systems, key."""
    parts = [f"# {TITLE}", *([_drawn(board)] if board.seed is not None else [])]
    for table in board.tables:
        heads = ("system", "rank", *(f"{m}\n{_size(table, m)}" for m in table.metrics), "marks")
        rows = [
            (
                _plain(f"{line.name}: {line.system}"),
                str(line.rank or "–"),
                *(
                    f"{_value(c)} {_interval(c)}".strip()
                    for c in map(line.cells.get, table.metrics)
                ),
                _plain(", ".join(line.marks)),
            )
            for line in table.lines
        ]
        parts.append(
            written(
                Sheet(_plain(table.title), heads, tuple(rows), (_plain(table.note),)), "markdown"
            )
        )
    if board.timed:
        parts.append(_time_sheet(board.timed))
    for report in board.refused:
        found = [f"- {_plain(str(finding))}" for finding in report.findings]
        parts.append("\n".join([f"**{_plain(report.bundle)}**: not ranked", "", *found]))
    systems = ["## Systems", *map(_listed, board.accepted)] if board.accepted else []
    return "\n\n".join([*parts, *systems, KEY, PROVES]) + "\n"


def _listed(report: Report) -> str:
    """What is told of a bundle beside its scores."""
    terms = [
        f"- {name}: {_plain(each)}" for name, texts in _terms(report).items() for each in texts
    ]
    head = f"**{_plain(str(report.submission['system']))}** ({_plain(_shown_by(report))})"
    return "\n".join([head, "", *terms])


def _time_sheet(timed: Iterable[Timed]) -> str:
    rows = tuple(
        (
            _plain(f"{t.report.submission['system']}: {t.latency.system}"),
            f"{_plain(t.metric)} {_value(t.quality)} {_interval(t.quality)}".rstrip(),
            _ms(t.latency.p50_ms),
            _ms(t.latency.p95_ms),
            str(t.latency.questions),
            _plain(_where(t)),
        )
        for t in timed
    )
    return written(Sheet("Quality against time", TIMES, rows, (SELF,)), "markdown")


def as_text(board: Board) -> str:
    """Everything, as JSON."""
    value = {
        "tables": [
            {
                **table.sample._asdict(),
                "title": table.title,
                "ranked_by": table.metric,
                "lines": [
                    {
                        "bundle": line.report.bundle,
                        "name": line.name,
                        "system": line.system,
                        "rank": list(line.rank) if line.rank else None,
                        "marks": line.marks,
                        "cells": {name: asdict(cell) for name, cell in line.cells.items()},
                    }
                    for line in table.lines
                ],
            }
            for table in board.tables
        ],
        "bundles": [as_json(each) for each in (*board.accepted, *board.refused)],
        "time": [
            {
                "bundle": t.report.bundle,
                **asdict(t.latency),
                "metric": t.metric,
                "quality": asdict(t.quality) if t.quality else None,
            }
            for t in board.timed
        ],
        "seed": board.seed,
        "left_out": board.left_out,
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


# --- small texts ----------------------------------------------------------------------


def _plain(text: str) -> str:
    """Foreign text that markdown shows as it stands, in one line: it makes no link, calls nobody,
    and is no formula where a cell is pasted. `APART` stands where an escape is not enough."""
    shown = re.sub(r"([\\`*_{}\[\]()<>#+!|~&-])", r"\\\1", " ".join(text.split()))
    shown = re.sub(r"(?i)(?<=www)(?=\.)|(?=://)", r"\\", shown)
    shown = re.sub(r"(?<!\w)@|@(?=[\w\\-]+\.)", f"@{APART}", shown)  # not that of bm25@5
    return re.sub(r"^(?=\\?[-+=@])", APART, shown)


def _shown_by(report: Report) -> str:
    return f"{report.bundle} · {report.badge}"


def _terms(report: Report) -> dict[str, list[str]]:
    """What a submitter says of a system, and what to know of its bundle."""
    told = {name: str(value) for name, value in report.submission.items()}
    told["training data"] = ", ".join(report.submission["training_data"]) or "none named"
    terms = {n: [text] for n, text in told.items() if n not in ("system", "training_data")}
    again = [f"{each.task} {each.system}: {each}; {each.rule}" for each in report.reruns]
    more = {"notes": list(report.notices), "asked again": again}
    return terms | {name: texts for name, texts in more.items() if texts}


def _drawn(board: Board) -> str:
    return f"Questions that were asked again were drawn by seed {board.seed}."


def _where(timed: Timed) -> str:
    """What was asked where, in words; of a mini task with what that says."""
    return titled(timed.latency, timed.latency.generated, str(timed.report.submission["hardware"]))


def _value(cell: Record | None) -> str:
    return "–" if cell is None else f"{cell.value:.3f}"


def _interval(cell: Record | None) -> str:
    if cell is None or cell.low is None or cell.high is None:
        return ""
    return f"({cell.low:.3f}–{cell.high:.3f})"


def _size(table: Ranked, metric: str) -> str:
    """Questions, groups and kind of gold of a column."""
    cells = [line.cells[metric] for line in table.lines if metric in line.cells]
    most = max(cells, key=lambda cell: cell.n)
    return f"{most.n} ({most.groups}) {most.gold}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
