"""What papers print, as they print it: tables of their own, never beside a number of ours.

paper_reported.csv has a cell a line. What makes cells of two papers different numbers (the set,
its size, how an answer is judged) is said with each: of what a paper does not state, "not stated".
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

from harness.report.sheet import Sheet, Style, written

SOURCE = "as reported in the papers, not ours"
UNSTATED = "not stated"
KEY = (
    "In the papers' own units (EM, F1, Acc, R: per cent). Under each column: set, metric, its "
    "questions, kind of gold (official: accepted answers; distant: an accepted answer stands in a "
    "passage). Cells of two papers are not of one ranking: other sets, corpora, prompts and "
    "scorers (docs/why-is-my-number-different.md)."
)


class Paper(NamedTuple):
    """How a paper's numbers came about; sizes: questions of each of its sets."""

    setting: str
    sizes: dict[str, int]


PAPERS = {
    "DRO 2505.03075": Paper(
        "Wikipedia of December 2018 in passages of 100 words; the 20 best of ColBERTv2, of which 5 "
        "are read; development sets; EM and F1 of KILT; Recall@K: an accepted answer stands in one "
        "of K passages",
        {"NQ": 6489, "HotpotQA": 7384, "MuSiQue": 2417, "2Wiki": 12576, "WoW": 3054},
    ),
    "RetroLLM 2412.11919": Paper(
        "Wikipedia of December 2018, 21,015,324 passages; rivals read what E5-base finds; F1 of "
        "what stands behind 'the answer is'; Acc: very probably an accepted answer anywhere in "
        "what was written, evidence included",
        {"NQ": 3610, "TriviaQA": 11313, "HotpotQA": 7405, "PopQA": 14267, "2WIKI": 12576},
    ),
    "RAG-GD 2605.26356": Paper(
        "FlashRAG's corpus and splits; 5 passages of BM25 or E5-large are read; EM and F1 of SQuAD",
        {"Bamboogle": 125},
    ),
}
KINDS = {"EM": "official", "F1": "official", "Acc": "official"}
KINDS |= {f"Recall@{k}": "distant" for k in (1, 3, 5)}


@dataclass(frozen=True)
class Reported:
    """One cell, in the paper's own unit. n: questions of its set, None where the paper does not
    say; gold: the kind of what it is judged by, `UNSTATED` likewise, empty for what is counted."""

    source: str
    paper: str
    table: str
    backbone: str
    method: str
    retriever: str
    dataset: str
    metric: str
    value: float
    note: str
    n: int | None
    gold: str
    setting: str


def reported() -> list[Reported]:
    """Every cell, in the order of the papers' tables."""
    text = files("harness.report").joinpath("paper_reported.csv").read_text(encoding="utf-8")
    return [_cell(row) for row in csv.DictReader(text.splitlines())]


def _cell(row: dict[str, str]) -> Reported:
    paper, metric = PAPERS[row["paper"]], row["metric"]
    told: dict[str, Any] = {**row, "value": float(row["value"])}
    return Reported(
        **told,
        source=SOURCE,
        n=paper.sizes.get(row["dataset"].rstrip("?").removesuffix("(inferred)")),
        gold=KINDS.get(metric, UNSTATED if metric.startswith("R@") else ""),
        setting=paper.setting,
    )


def text(style: Style = "table") -> str:
    """All of them, a table for each that is printed, and what a reader has to know."""
    return "\n\n".join([*(written(each, style) for each in sheets()), KEY])


def sheets() -> list[Sheet]:
    """A table for each that a paper prints."""
    cells = groupby(reported(), key=lambda cell: (cell.paper, cell.table))
    return [_sheet(paper, table, list(each)) for (paper, table), each in cells]


def _sheet(paper: str, table: str, cells: Sequence[Reported]) -> Sheet:
    columns = dict.fromkeys((cell.dataset, cell.metric, cell.n, cell.gold) for cell in cells)
    lines: dict[tuple[str, ...], dict[tuple[str, str], Reported]] = {}
    for cell in cells:
        of = (cell.method, cell.backbone, cell.retriever)
        lines.setdefault(of, {})[cell.dataset, cell.metric] = cell
    rows = [
        (
            " · ".join(filter(None, of)),
            *(f"{own[c[:2]].value:g}" if c[:2] in own else "–" for c in columns),
            _remark(own),
        )
        for of, own in lines.items()
    ]
    heads = (
        "\n".join(filter(None, (name, metric, f"{n:,}" if n else f"n {UNSTATED}", gold)))
        for name, metric, n, gold in columns
    )
    where = table if table.startswith("Fig") else f"table {table}"
    notes = (f"{PAPERS[paper].setting}.",)
    return Sheet(f"{paper} · {where} — {SOURCE}", ("method", *heads, "note"), tuple(rows), notes)


def _remark(own: dict[tuple[str, str], Reported]) -> str:
    """The notes of a line's cells, and which of them cannot be of one set of predictions."""
    notes = dict.fromkeys(cell.note for cell in own.values() if cell.note)
    odd = [
        name
        for name in dict.fromkeys(name for name, _ in own)
        if name != "Avg" and {(name, "EM"), (name, "F1")} <= own.keys()
        if own[name, "F1"].value < own[name, "EM"].value
    ]
    return "; ".join([*notes, *(f"F1 below EM: {name}" for name in odd)])
